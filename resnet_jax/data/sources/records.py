"""Records of files by number: ArrayRecord, and TFRecord with an index that is built here.

A record of TFRecord is its length (8 bytes), a checksum of the length (4), the data, and a checksum
of the data (4), all little-endian. The checksums are CRC-32C, rotated and shifted, so that data
that contain checksums are safe (tensorflow/core/lib/io/record_writer.h).
"""

import contextlib
import itertools
import os
import resource
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import IO, TYPE_CHECKING

import google_crc32c
import numpy as np
from etils import epath
from tqdm import tqdm

from resnet_jax.data.sources import Once, call
from resnet_jax.data.sources.storage import cached, read_file
from resnet_jax.errors import InputError
from resnet_jax.files import is_local

if TYPE_CHECKING:  # it takes a second to import
    from array_record.python.array_record_module import ArrayRecordReader

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_FRAME = _HEADER.size + _FOOTER.size

_MASK = 0xA282EAD8

_THREADS = 8

_BLOCK = 1 << 12
"""Bytes that are read at once of a local file, for the headers in them."""


class Records:
    """The records of several files by number, one file after the other, for several threads."""

    def __init__(self, counts: Sequence[int], read: Callable[[int, int], bytes]) -> None:
        """Takes each file's number of records, and what reads a record, by file and number."""
        self._firsts = list(itertools.accumulate(counts, initial=0))
        self._read = read

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, index: int, /) -> bytes:
        file = bisect_right(self._firsts, index) - 1
        return self._read(file, index - self._firsts[file])


def array_records(files: Sequence[epath.Path], counts: Sequence[int]) -> Records:
    """Returns the records of ArrayRecord files; opens none yet.

    array_record's own data source keeps every file open (ImageNet has 1,024, as many as a process
    may open by default) and does not compare their numbers of records with those stated.
    """

    # A reader that is dropped is closed once no thread uses it any more.
    @lru_cache(most_open_files())
    def opened(number: int) -> "ArrayRecordReader":
        from array_record.python.array_record_module import ArrayRecordReader

        file = files[number]
        # Examples are read in random order, so reading ahead is useless.
        reader = ArrayRecordReader(
            os.fspath(file), options="readahead_buffer_size:0", file_reader_buffer_size=1 << 15
        )
        if not reader.ok():
            reader.read([0])  # raises what is wrong with it
        _check_count(reader.num_records(), counts[number])
        return reader

    def read(number: int, record: int) -> bytes:
        with _refusing(files[number]):
            return opened(number).read([record])[0]

    return Records(counts, read)


def tfrecords(
    files: Sequence[epath.Path], counts: Sequence[int], name: str, once: Once = call
) -> Records:
    """Returns the records of a split's TFRecord files; each is checked as it is read.

    `once` indexes the files in one of several processes for all of them.

    Raises:
      InputError: A file is missing, is not a sound TFRecord, or has another number of records.
    """
    starts = [np.array(each, np.int64) for each in once(partial(index_records, files, name))]
    for file, of_file, count in zip(files, starts, counts, strict=True):
        with _refusing(file):
            _check_count(len(of_file) - 1, count)

    def read(number: int, record: int) -> bytes:
        start, stop = starts[number][record : record + 2].tolist()
        with _refusing(files[number]):
            return unframe(read_file(files[number], start, stop), start)

    return Records(counts, read)


def index_records(files: Sequence[epath.Path], name: str) -> list[list[int]]:
    """Returns for each file of a folder where its records begin, and last its size.

    The index is cached as `index-<name>`, until a file's name, size or time of change differs.

    Raises:
      InputError: A file is missing, or is not a sound TFRecord.
    """
    folder = files[0].parent

    def state(file: epath.Path) -> list[object]:
        with _refusing(file):
            if is_local(file):
                status = os.stat(file)
                return [file.name, status.st_size, status.st_mtime_ns]
            described = file.stat()
            return [file.name, described.length, described.mtime]

    def make() -> list[list[int]]:
        def find(file: epath.Path) -> list[int]:
            # A store reads ahead by itself: a header takes it as long as megabytes.
            opening = (
                partial(open, file, "rb", _BLOCK) if is_local(file) else partial(file.open, "rb")
            )
            with _refusing(file), opening() as content:
                return find_records(content)

        found = tqdm(
            pool.map(find, files),
            desc=f"finding the records of {folder.parent.name} {name}",
            total=len(files),
            unit=" files",
            delay=2,
            leave=False,
        )
        return list(found)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="index") as pool:
        return cached(folder, f"index-{name}", list(pool.map(state, files)), make)


def find_records(file: IO[bytes]) -> list[int]:
    """Returns where each record of an open TFRecord file begins and, last, the file's size.

    Headers are read, and the data between them are not.

    Raises:
      InputError: A length is not what was written, or the file ends within a record.
    """
    starts = [0]
    file.seek(0, os.SEEK_END)
    at, size = 0, file.tell()  # TensorFlow's files return nothing from `seek`
    while at < size:
        file.seek(at)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise InputError(f"ends within a record, that of byte {at}")
        length, checksum = _HEADER.unpack(header)
        if _masked(header[:8]) != checksum:
            raise InputError(
                f"has at byte {at} a length that is not what was written"
                if at
                else "is not a TFRecord file, or it is compressed"
            )
        if at + _FRAME + length > size:
            raise InputError(f"ends within a record, that of byte {at}")
        at += _FRAME + length
        starts.append(at)
    return starts


def unframe(record: bytes, start: int) -> bytes:
    """Returns the data of a TFRecord's record, which begins at byte `start` of its file.

    Raises:
      InputError: It is not as it was written.
    """
    if len(record) < _FRAME:
        raise InputError(f"ends within a record, that of byte {start}")
    length, checksum = _HEADER.unpack_from(record)
    data = record[_HEADER.size : -_FOOTER.size]
    (data_checksum,) = _FOOTER.unpack_from(record, len(record) - _FOOTER.size)
    if _masked(record[:8]) != checksum or length != len(data) or _masked(data) != data_checksum:
        raise InputError(f"has a record that is not what was written, that of byte {start}")
    return data


def frame(data: bytes) -> bytes:
    """Returns data as a record of TFRecord."""
    length = struct.pack("<Q", len(data))
    checksums = (_FOOTER.pack(_masked(content)) for content in (length, data))
    return length + next(checksums) + data + next(checksums)


def most_open_files() -> int:
    """Returns how many files a source may keep open: a quarter of the process's limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(16, min(4096, soft // 4))


def _masked(data: bytes) -> int:
    checksum = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + _MASK) & 0xFFFFFFFF


def _check_count(count: int, stated: int) -> None:
    if count != stated:
        raise InputError(f"has {count} records and dataset_info.json says {stated}")


@contextlib.contextmanager
def _refusing(file: epath.Path) -> Iterator[None]:
    """Refuses a file that is damaged or cannot be read, by its name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{file} {error}; copy or prepare it again") from error
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{file} cannot be read: {reason}") from error
