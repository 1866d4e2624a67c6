"""A profile of some steps, for TensorBoard's profiler or Perfetto."""

import jax
from etils import epath
from jaxtyping import PyTree


class Profile:
    """Records the host and the devices from the first to the last of two steps, counted from 1."""

    def __init__(self, steps: tuple[int, int] | None, folder: epath.Path) -> None:
        self._first, self._last = steps or (0, 0)
        self._folder = folder
        self._recording = False

    def before(self, step: int) -> None:
        """Begins before the first of the steps, or where a run goes on among them."""
        if self._first <= step <= self._last and not self._recording:
            jax.profiler.start_trace(str(self._folder))
            self._recording = True

    def after(self, step: int, state: PyTree) -> None:
        """Ends after the last of the steps, when the device has taken it."""
        if self._recording and step >= self._last:
            jax.block_until_ready(state)
            self.__exit__()

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._recording:
            self._recording = False
            jax.profiler.stop_trace()
