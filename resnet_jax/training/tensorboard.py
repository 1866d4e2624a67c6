"""TensorBoard event files, without TensorFlow.

An event is a small message of protocol buffers. It is encoded here because the libraries that write
events import TensorFlow or torch, which takes seconds at every start of a run.
"""

import socket
import struct
import time
from collections.abc import Mapping

from etils import epath

from resnet_jax.data.sources.records import frame
from resnet_jax.files import GrowingFile


class TensorBoard:
    """Scalars `split/name` in an event file of this start of the run.

    Attributes:
      file: To be synchronised and closed.
    """

    def __init__(self, directory: epath.PathLike, *, resume_step: int) -> None:
        """Begins a file; TensorBoard drops the events of later steps in older files."""
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self.file = GrowingFile(epath.Path(directory) / name)
        self._write(0, _field(3, b"brain.Event:2"))  # file_version
        self._write(resume_step + 1, _field(7, b"\x08\x01"))  # session_log, status START

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes a scalar for each value."""
        for name, value in values.items():
            tag = _field(1, f"{split}/{name}".encode())
            simple_value = b"\x15" + struct.pack("<f", value)
            self._write(step, _field(5, _field(1, tag + simple_value)))  # summary, its first value

    def _write(self, step: int, content: bytes) -> None:
        """Writes an event (tensorflow/core/util/event.proto) as a record of a TFRecord file."""
        event = b"\x09" + struct.pack("<d", time.time())  # wall_time
        if step:
            event += b"\x10" + _varint(step)
        event += content
        self.file.write(frame(event))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
