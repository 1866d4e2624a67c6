"""The wire format of protocol buffers: fields of a message, and back.

A field is looked at, never copied: whatever a message claims, nothing is allocated for it.
"""

from collections.abc import Iterator
from typing import NamedTuple

from resnet_jax.errors import InputError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


class Field(NamedTuple):
    """A field of a message.

    Attributes:
      number: Its number.
      value: An int for a varint; the bytes of anything else.
    """

    number: int
    value: int | memoryview


def fields(message: memoryview) -> Iterator[Field]:
    """Yields the fields of a message.

    Args:
      message: Its bytes.

    Raises:
      InputError: It is cut off, or no message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if number == 0 or kind not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
            raise InputError("it is no message of protocol buffers")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield Field(number, value)
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
        if kind == _BYTES:
            length, at = _varint(message, at)
        if length > len(message) - at:
            raise InputError(f"it has a field of {length} bytes where {len(message) - at} are left")
        yield Field(number, message[at : at + length])
        at += length


def varints(packed: memoryview) -> Iterator[int]:
    """Yields numbers that stand in a row.

    Raises:
      InputError: The last one is cut off.
    """
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def field(number: int, value: bytes | int) -> bytes:
    """Returns a field: a varint for an int, else bytes."""
    if isinstance(value, int):
        return varint(number << 3 | _VARINT) + varint(value)
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """Returns a number that is not negative, seven bits a byte."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, at + i + 1
    raise InputError("it ends within a number")
