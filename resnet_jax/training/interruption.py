"""SIGTERM and Ctrl-C: the step ends, the state is saved, and the run can go on."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from etils import epath

EXIT_INTERRUPTED = 75
"""Exit status of a run that was interrupted and saved: `EX_TEMPFAIL`, start me again."""


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """The run was interrupted; it has saved its state and can be started again.

    Attributes:
      step: The step that was saved.
      signal: What interrupted it.
      workdir: Where it is saved.
    """

    exit_status = EXIT_INTERRUPTED

    def __init__(self, step: int, signal: signal.Signals, workdir: epath.PathLike) -> None:
        self.step = step
        self.signal = signal
        self.workdir = epath.Path(workdir)
        super().__init__(
            f"interrupted by {signal.name} and saved at step {step}; "
            f"the same command goes on from there (the workdir is {os.fspath(workdir)})"
        )


class Interruption:
    """Turns the first SIGTERM or Ctrl-C into a request that the loop asks for after each step.

    A second Ctrl-C raises `KeyboardInterrupt` at once. The handlers do no more than note the
    signal, and the old ones come back at the end. Only a main thread can have handlers; in another
    the signals do what they did.

    With several processes, all have to end at the same step, also when only one of them was
    signalled. `sync` says so, and JAX's preemption service, which is behind it, catches SIGTERM
    itself: here it is left alone, and Ctrl-C is passed on to it as SIGTERM.

    Attributes:
      requested: The signal that asked the run to end, or None.
    """

    def __init__(self, sync: Callable[[int], bool] | None = None) -> None:
        """Installs nothing yet: the `with` statement does.

        Args:
          sync: With several processes, `step -> bool`, to be called after each step by all of them
            and True on all at the same step, such as
            `jax.experimental.multihost_utils.reached_preemption_sync_point`.
        """
        self.requested: signal.Signals | None = None
        self._sync = sync
        self._old: dict[signal.Signals, signal.Handlers | Callable | int | None] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._old[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_interrupt)
            if self._sync is None:
                self._old[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_terminate)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._old:
            number, handler = self._old.popitem()
            # None: it was not installed by Python, which cannot put it back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def should_stop(self, step: int) -> bool:
        """Whether the run has to end after this step.

        Args:
          step: The step that was just taken. With several processes each has to ask after every
            step, or they would not agree.
        """
        if self._sync is None:
            return self.requested is not None
        if not self._sync(step):
            return False
        self.requested = self.requested or signal.SIGTERM
        return True

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        self.requested = self.requested or signal.SIGTERM

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.requested is signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.SIGINT
        if self._sync is not None:
            signal.raise_signal(signal.SIGTERM)
