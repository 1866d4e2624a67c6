"""The files of a prepared data set, and how records are written to them."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from etils import epath

from resnet_jax.data.prepare.plan import Format
from resnet_jax.data.sources.tfrecord import find_records, frame
from resnet_jax.files import is_local, make_durable

_CHUNK = 1 << 20  # bytes


class Writer(Protocol):
    """What records are given to, one after the other."""

    def write(self, record: bytes, /) -> object:
        """Appends a record."""
        ...


@contextlib.contextmanager
def open_writer(path: epath.PathLike, format_name: Format) -> Iterator[Writer]:
    """Opens a local file for records; once it is closed, its content is durable."""
    if format_name == "array_record":
        from array_record.python.array_record_module import ArrayRecordWriter

        # Images are compressed already.
        writer = ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")
        try:
            yield writer
        finally:
            writer.close()
        make_durable(path)
    else:
        with open(path, "wb") as file:
            yield _Frames(file)
            file.flush()
            os.fsync(file.fileno())


class _Frames:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, record: bytes, /) -> None:
        self._file.write(frame(record))


def fingerprint(path: epath.Path) -> tuple[int, str]:
    """Returns the size in bytes and the SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def count_records(path: epath.Path, format_name: Format) -> int:
    """Returns how many records a local file has, as a reader sees it."""
    if format_name == "array_record":
        from array_record.python.array_record_module import ArrayRecordReader

        return ArrayRecordReader(os.fspath(path)).num_records()
    with path.open("rb") as file:

        def read(start: int, stop: int) -> bytes:
            file.seek(start)
            return file.read(stop - start)

        return len(find_records(read, path.stat().length, _CHUNK)) - 1


def put(file: epath.Path, place: epath.Path) -> None:
    """Moves a durable local file to where it belongs; there it is whole or not at all."""
    if not is_local(place):
        file.copy(place, overwrite=True)  # an object appears when it is whole
        file.unlink()
        return
    os.replace(file, place)
    make_durable(place.parent)  # the rename itself
