"""A profile of some steps, for TensorBoard's profiler or Perfetto."""

from typing import Self

import jax
from etils import epath

from resnet_jax.training.state import TrainState


class Profile:
    """Records what host and devices do during the steps that the config names."""

    def __init__(self, steps: tuple[int, int] | None, folder: epath.Path) -> None:
        """Records nothing yet.

        Args:
          steps: The first and the last step, counted from 1, or `None`.
          folder: Where the profile goes.
        """
        self._first, self._last = steps or (0, 0)
        self._folder = folder
        self._recording = False

    def before(self, step: int) -> None:
        """Begins before the first of the steps, or where a run goes on among them."""
        if self._first <= step <= self._last and not self._recording:
            jax.profiler.start_trace(str(self._folder))
            self._recording = True

    def after(self, step: int, state: TrainState) -> None:
        """Ends after the last of the steps, when the device has taken it."""
        if self._recording and step >= self._last:
            jax.block_until_ready(state)
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._recording:
            self._end()

    def _end(self) -> None:
        jax.profiler.stop_trace()
        self._recording = False
