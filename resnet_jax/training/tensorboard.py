"""TensorBoard events, without TensorFlow."""

import socket
import struct
import time
from collections.abc import Mapping

from etils import epath

from resnet_jax.files import GrowingFile


class TensorBoard:
    """The scalars of a run, each under `split/name`.

    Every start of a run has an event file of its own. tensorboardX makes the events; they are
    written here, since its own writer has a queue that `flush` does not empty, and gives two
    files that begin in the same second the same name.
    """

    def __init__(self, directory: epath.PathLike, *, resume_step: int) -> None:
        """Begins an event file.

        Args:
          directory: Where the event files are; it is made where it is missing.
          resume_step: The step that the run goes on from. TensorBoard drops the events of later
            steps in older files.
        """
        # Here, for it imports torch where there is one, which takes seconds.
        from tensorboardX.proto.event_pb2 import (
            Event,  # pyrefly: ignore[missing-module-attribute]
            SessionLog,  # pyrefly: ignore[missing-module-attribute]
        )
        from tensorboardX.record_writer import masked_crc32c
        from tensorboardX.summary import scalar

        self._event, self._scalar, self._checksum = Event, scalar, masked_crc32c
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self._file = GrowingFile(epath.Path(directory) / name)
        self._write(Event(file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=resume_step + 1, session_log=start))

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes a scalar for each value, such as `train/loss` and `test/top1_error`."""
        for name, value in values.items():
            summary = self._scalar(f"{split}/{name}", float(value))
            self._write(self._event(step=step, summary=summary))

    def flush(self) -> None:
        """Makes everything that was written durable."""
        self._file.sync()

    def close(self) -> None:
        """Makes everything that was written durable and closes the file."""
        self._file.close()

    def _write(self, event) -> None:
        event.wall_time = time.time()
        data = event.SerializeToString()
        # A record of TensorFlow: the length, the data, and a checksum of each.
        length = struct.pack("<Q", len(data))
        self._file.write(
            length
            + struct.pack("<I", self._checksum(length))
            + data
            + struct.pack("<I", self._checksum(data))
        )
