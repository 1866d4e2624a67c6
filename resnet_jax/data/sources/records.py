"""Records by number, from the files of a split."""

import itertools
import os
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from etils import epath

from resnet_jax.data.sources.ranged import RangedReader, most_open_files
from resnet_jax.data.sources.record_index import index_records
from resnet_jax.data.sources.tfrecord import Damage, unframe
from resnet_jax.errors import InputError

if TYPE_CHECKING:
    from array_record.python.array_record_module import ArrayRecordReader


class Records(Protocol):
    """Records by number, for several threads at once. Each record is checked as it is read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes: ...


class TFRecords:
    """The records of TFRecord files, one file after the other."""

    def __init__(self, files: Sequence[epath.Path], counts: Sequence[int], name: str) -> None:
        """Finds the records, or reads where they are, as `index_records` does it.

        Args:
          files: TFRecord files of one folder.
          counts: How many records each has to have.
          name: What they are called together, such as the split.

        Raises:
          InputError: A file is missing, is no sound TFRecord, or has another number of records.
        """
        self._reader = RangedReader()
        found = index_records(files, name, self._reader)
        for file, starts, count in zip(files, found, counts, strict=True):
            _check_count(file, len(starts) - 1, count)
        self._files = files
        self._firsts = list(itertools.accumulate(counts, initial=0))
        self._starts = np.concatenate(found)

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, index: int, /) -> bytes:
        shard = bisect_right(self._firsts, index) - 1
        # Each file has one start more than it has records.
        start, stop = self._starts[index + shard : index + shard + 2].tolist()
        file = self._files[shard]
        try:
            return unframe(self._reader.read(file, start, stop))
        except Damage as damage:
            raise InputError(
                f"{file} {damage}, that of byte {start}; copy or prepare it again"
            ) from damage
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error}") from error


class ArrayRecords:
    """The records of ArrayRecord files, one file after the other."""

    def __init__(self, files: Sequence[epath.Path], counts: Sequence[int]) -> None:
        """Opens nothing yet.

        Args:
          files: ArrayRecord files.
          counts: How many records each has to have.
        """
        self._files = files
        self._counts = counts
        self._firsts = list(itertools.accumulate(counts, initial=0))
        # One that was let go of is closed when no thread reads from it any more.
        self._open = lru_cache(most_open_files())(partial(_open_array_record, files, counts))

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, index: int, /) -> bytes:
        shard = bisect_right(self._firsts, index) - 1
        reader = self._open(shard)
        try:
            return reader.read([index - self._firsts[shard]])[0]
        except RuntimeError as error:
            raise _unreadable(self._files[shard], error) from error


def _open_array_record(
    files: Sequence[epath.Path], counts: Sequence[int], shard: int
) -> "ArrayRecordReader":
    from array_record.python.array_record_module import ArrayRecordReader

    file = files[shard]
    try:
        # Examples are read in any order: what lies behind one is of no use.
        reader = ArrayRecordReader(
            os.fspath(file), options="readahead_buffer_size:0", file_reader_buffer_size=1 << 15
        )
        if not reader.ok():
            reader.read([0])  # raises what is wrong with it
    except RuntimeError as error:
        raise _unreadable(file, error) from error
    _check_count(file, reader.num_records(), counts[shard])
    return reader


def _unreadable(file: epath.Path, error: RuntimeError) -> InputError:
    return InputError(f"{file} cannot be read: {str(error).splitlines()[0]}")


def _check_count(file: epath.Path, found: int, stated: int) -> None:
    if found != stated:
        raise InputError(
            f"{file} has {found} records and dataset_info.json says {stated}; copy or prepare the "
            "data set again"
        )
