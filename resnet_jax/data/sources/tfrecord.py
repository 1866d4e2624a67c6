"""TFRecord files: how records are framed, and where they begin.

A record is its length (8 bytes), a checksum of the length (4), the data, and a checksum of the data
(4), all little-endian. The checksums are CRC-32C, rotated and shifted so that data that have
checksums in them are no trap (tensorflow/core/lib/io/record_writer.h).
"""

import struct
from collections.abc import Callable

import google_crc32c
import numpy as np
from jaxtyping import Int64

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_FRAME = _HEADER.size + _FOOTER.size

_MASK = 0xA282EAD8


class Damage(Exception):  # noqa: N818 - it is a finding about a file, not a failure of the program
    """What is wrong with a file, worded to follow its name: "ends within a record"."""


def frame(data: bytes) -> bytes:
    """Returns a record as it stands in a file."""
    length = struct.pack("<Q", len(data))
    return b"".join([length, _FOOTER.pack(_masked(length)), data, _FOOTER.pack(_masked(data))])


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
    """Finds the records of a file by their headers; the data between them are not read.

    Args:
      read: Returns the bytes of the file from a position to another, which is at most `size`.
      size: Bytes of the file.
      block: How many bytes are read at once, at least those of a header. Where records are shorter
        than that, the file is read as a whole.

    Returns:
      Where each record begins and, last, `size`.

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
                else "is no TFRecord, or a compressed one"
            )
        if at + _FRAME + length > size:
            raise Damage(f"ends within a record, that of byte {at}")
        at += _FRAME + length
        starts.append(at)
    return np.array(starts, np.int64)


def _masked(data: bytes) -> int:
    checksum = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + _MASK) & 0xFFFFFFFF
