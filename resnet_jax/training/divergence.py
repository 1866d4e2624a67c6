"""Numbers that are infinite or NaN end a run, with the first such step."""

from collections.abc import Sequence

import jax

from resnet_jax.checkpoints import Checkpoints
from resnet_jax.training.run import Run
from resnet_jax.training.state import TrainState


class DivergedError(RuntimeError):
    """A number of the training is infinite or NaN.

    Attributes:
      step: The first step with such a number, counted from 1.
      keys: The examples of its batch.
    """

    exit_status = 1
    on_all_processes = True

    def __init__(self, message: str, step: int, keys: Sequence[str]) -> None:
        super().__init__(message)
        self.step = step
        self.keys = keys


class Divergence:
    """Finds the first step that was not finite, without a fetch in the steps between checks."""

    def __init__(self, run: Run, checkpoints: Checkpoints) -> None:
        self._run = run
        self._checkpoints = checkpoints
        self._flags: list[jax.Array] = []  # of the steps since the last check, on the device

    def note(self, finite: jax.Array) -> None:
        """Keeps a step's `finite`, without waiting for it."""
        self._flags.append(finite)

    def check(self, step: int, state: TrainState) -> None:
        """Waits for the device, and refuses a state that is not finite.

        Args:
          step: The step that was just taken.
          state: The state after it.

        Raises:
          DivergedError: A number of this step or of one since the last check is not finite.
        """
        finite, flags = jax.device_get((state.window.finite, self._flags))
        self._flags.clear()
        if finite:
            return
        first = step - len(flags) + 1 + flags.index(False)
        self._checkpoints.wait()
        steps = self._checkpoints.steps()
        keys = self._run.example_keys(first - 1)
        raise DivergedError(
            f"training has diverged: since step {first} loss, gradients, parameters or statistics "
            "are infinite or NaN, and no such state was saved; "
            f"{f'the newest checkpoint is of step {steps[-1]}' if steps else 'none was saved'}; "
            f"the batch of step {first} had the examples {', '.join(keys)}",
            first,
            keys,
        )
