"""TFRecord files: how records are framed, where they begin, and records by number.

A record is its length (8 bytes), a checksum of the length (4), the data, and a checksum of the data
(4), all little-endian. The checksums are CRC-32C, rotated and shifted, so that data that contain
checksums are safe (tensorflow/core/lib/io/record_writer.h).
"""

import hashlib
import itertools
import json
import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import google_crc32c
import numpy as np
from etils import epath
from jaxtyping import Int64
from tqdm import tqdm

from resnet_jax.data.sources.storage import RangedReader, cache_paths, write_cache
from resnet_jax.errors import InputError
from resnet_jax.files import is_local

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_FRAME = _HEADER.size + _FOOTER.size

_MASK = 0xA282EAD8

_VERSION = 1
_THREADS = 8

_LOCAL_BLOCK = 1 << 12
_STORE_BLOCK = 1 << 23
"""Bytes: a store takes as long for a header as for megabytes, so files are read as a whole."""

_DIGEST = 32  # bytes, SHA-256


class Damage(Exception):  # noqa: N818 - a fault of a file, not of the program
    """A file is damaged; the message follows its name: "ends within a record"."""


class TFRecords:
    """The records of TFRecord files by number, one file after the other, for several threads.

    Each record is checked as it is read.
    """

    def __init__(self, files: Sequence[epath.Path], counts: Sequence[int], name: str) -> None:
        """Finds the records of a split's files, in one folder, or reads the cached index.

        Raises:
          InputError: A file is missing, is not a sound TFRecord, or has another number of records.
        """
        self._reader = RangedReader()
        index = index_records(files, name, self._reader)
        for file, starts, count in zip(files, index, counts, strict=True):
            check_count(file, len(starts) - 1, count)
        self._files = files
        self._firsts = list(itertools.accumulate(counts, initial=0))
        self._starts = np.concatenate(index)

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


def check_count(file: epath.Path, count: int, stated: int) -> None:
    """Raises InputError unless a file has the number of records that dataset_info.json states."""
    if count != stated:
        raise InputError(
            f"{file} has {count} records and dataset_info.json says {stated}; copy or prepare the "
            "data set again"
        )


def unframe(record: bytes) -> bytes:
    """Returns the data of a record.

    Raises:
      Damage: It is not as it was written.
    """
    if len(record) < _FRAME:
        raise Damage("ends within a record")
    length, checksum = _HEADER.unpack_from(record)
    data = record[_HEADER.size : -_FOOTER.size]
    (data_checksum,) = _FOOTER.unpack_from(record, len(record) - _FOOTER.size)
    if _masked(record[:8]) != checksum or length != len(data) or _masked(data) != data_checksum:
        raise Damage("has a record that is not what was written")
    return data


def find_records(
    read: Callable[[int, int], bytes], size: int, block: int
) -> Int64[np.ndarray, "starts"]:
    """Returns where each record of a file begins and, last, the file's size.

    Headers are read, `block` bytes at once, and the data between them are not, where records are
    longer than that. `read` returns the bytes of the file from a position to another.

    Raises:
      Damage: A length is not what was written, or the file ends within a record.
    """
    starts = [0]
    at = first = 0
    content = b""
    while at < size:
        if at - first + _HEADER.size > len(content):
            first, content = at, read(at, min(size, at + block))
            if len(content) < _HEADER.size:
                raise Damage(f"ends within a record, that of byte {at}")
        length, checksum = _HEADER.unpack_from(content, at - first)
        if _masked(content[at - first : at - first + 8]) != checksum:
            raise Damage(
                f"has at byte {at} a length that is not what was written"
                if at
                else "is not a TFRecord file, or it is compressed"
            )
        if at + _FRAME + length > size:
            raise Damage(f"ends within a record, that of byte {at}")
        at += _FRAME + length
        starts.append(at)
    return np.array(starts, np.int64)


def _masked(data: bytes) -> int:
    checksum = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + _MASK) & 0xFFFFFFFF


class _Shard(NamedTuple):
    """A file, as its cached index refers to it."""

    name: str
    size: int
    changed: int


def index_records(
    files: Sequence[epath.Path], name: str, reader: RangedReader
) -> Sequence[Int64[np.ndarray, "starts"]]:
    """Returns for each file where its records begin, and last its size.

    The index is cached in `.index-<name>.bin` beside the files or in the user's cache, for as long
    as sizes and times of change stay the same. Several processes may do this at once.

    Raises:
      InputError: A file is missing, or is not a sound TFRecord.
    """
    folder = files[0].parent
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="index") as pool:
        shards = list(pool.map(_shard, files))
        paths = cache_paths(folder, f"index-{name}.bin")
        for path in paths:
            starts = _read_cache(path, shards)
            if starts is not None:
                return starts
        with tqdm(
            total=sum(shard.size for shard in shards),
            desc=f"finding the records of {folder.parent.name} {name}",
            unit="B",
            unit_scale=True,
            delay=2,
            leave=False,
        ) as bar:

            def find(file: epath.Path, shard: _Shard) -> Int64[np.ndarray, "starts"]:
                block = _LOCAL_BLOCK if is_local(file) else _STORE_BLOCK
                try:
                    starts = find_records(
                        lambda start, stop: reader.read(file, start, stop), shard.size, block
                    )
                except Damage as damage:
                    raise InputError(f"{file} {damage}; copy or prepare it again") from damage
                except OSError as error:
                    raise InputError(f"{file} cannot be read: {error}") from error
                bar.update(shard.size)
                return starts

            starts = list(pool.map(find, files, shards))
    write_cache(_cached(shards, starts), paths)
    return starts


def _shard(file: epath.Path) -> _Shard:
    try:
        if is_local(file):
            status = os.stat(file)
            return _Shard(file.name, status.st_size, status.st_mtime_ns)
        described = file.stat()
        return _Shard(file.name, described.length, described.mtime)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _cached(shards: Sequence[_Shard], starts: Sequence[Int64[np.ndarray, "starts"]]) -> bytes:
    header = {"version": _VERSION, "shards": shards, "starts": [len(each) for each in starts]}
    arrays = [each.astype("<i8").tobytes() for each in starts]
    body = b"".join([json.dumps(header).encode(), b"\n", *arrays])
    return hashlib.sha256(body).digest() + body


def _read_cache(
    path: epath.Path, shards: Sequence[_Shard]
) -> Sequence[Int64[np.ndarray, "starts"]] | None:
    """Returns the cached index, where it is whole and of these files as they are."""
    try:
        content = path.read_bytes()
    except Exception:  # missing or unreadable; object stores have errors of their own
        return None
    digest, body = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        return None
    line, arrays = body.split(b"\n", 1)
    header = json.loads(line)
    if header["version"] != _VERSION or header["shards"] != [list(shard) for shard in shards]:
        return None
    ends = np.cumsum(header["starts"])[:-1]
    return np.split(np.frombuffer(arrays, "<i8").astype(np.int64), ends)
