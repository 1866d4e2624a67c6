"""SIGTERM and Ctrl-C: the step ends, the state is saved, and the run can go on."""

import os
import signal
import threading
from collections.abc import Callable
from typing import Self

from etils import epath


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """The run was interrupted; it has saved its state and can be started again.

    Attributes:
      step: The step that was saved.
      signal: The signal that interrupted it.
      workdir: The workdir of the run.
    """

    exit_status = 75  # EX_TEMPFAIL: start me again
    on_all_processes = True

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

    A second Ctrl-C raises `KeyboardInterrupt` at once. The handlers only note the signal, and the
    old ones come back at the end. Outside of the main thread signals do as they did.

    With several processes, all have to end at the same step, also when only one of them was
    signalled. `sync` says so; JAX's preemption service, which is behind it, catches SIGTERM itself,
    and Ctrl-C is passed on to it as SIGTERM.

    Attributes:
      requested: The signal that asked the run to end, or None.
    """

    def __init__(self, sync: Callable[[int], bool] | None = None) -> None:
        """Installs nothing yet: the `with` statement does. See `parallel.preemption_sync`."""
        self.requested: signal.Signals | None = None
        self._sync = sync
        self._old = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT] if self._sync else [signal.SIGINT, signal.SIGTERM]
            self._old = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            # None: it was not installed by Python, which cannot put it back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def should_stop(self, step: int) -> signal.Signals | None:
        """Returns the signal that ends the run after this step, or None.

        With several processes each has to ask after every step, or they would not agree.
        """
        if self._sync is not None:
            return (self.requested or signal.SIGTERM) if self._sync(step) else None
        return self.requested

    def _handle(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self.requested is signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT or self.requested is None:
            self.requested = signal.Signals(number)
        if self._sync is not None:
            signal.raise_signal(signal.SIGTERM)
