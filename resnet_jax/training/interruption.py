"""Signals that ask the run to end: the state is saved, and the run can go on."""

import itertools
import os
import signal
import threading
import time
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


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

# Seconds in which a signal that comes twice counts once: `timeout` signals a process and its group,
# and so do shells whose terminal is closed.
_TOGETHER = 0.1


class Interruption:
    """Turns the first signal into a request that the loop asks for after each step and batch.

    The signals are SIGTERM, Ctrl-C, SIGHUP, SIGUSR1 and SIGUSR2, but for those that are ignored,
    as by `nohup`. The same one again ends the process at once: Ctrl-C by `KeyboardInterrupt`,
    others as if they were not handled. Another one asks again. The old handlers come back at the
    end. Outside of the main thread signals do as they did.

    With several processes, all have to end at the same place, also when only one of them was
    signalled. `sync` says so; JAX's preemption service, which is behind it, catches SIGTERM itself,
    and the others are passed on to it as SIGTERM.

    Attributes:
      requested: The signal that asked the run to end, or None.
    """

    def __init__(self, sync: Callable[[int], bool] | None = None) -> None:
        """Installs nothing yet: the `with` statement does. See `parallel.preemption_sync`."""
        self.requested: signal.Signals | None = None
        self._sync = sync
        self._calls = itertools.count(1)
        self._time = 0.0  # of the request
        self._old = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._old = {
                number: signal.signal(number, self._handle)
                for number in _SIGNALS
                if signal.getsignal(number) is not signal.SIG_IGN
                and not (self._sync and number == signal.SIGTERM)
            }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            # None: it was not installed by Python, which cannot put it back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def should_stop(self) -> signal.Signals | None:
        """Returns the signal that ends the run here, or None.

        With several processes each has to ask as often, or they would not agree.
        """
        if self._sync is not None:
            return (self.requested or signal.SIGTERM) if self._sync(next(self._calls)) else None
        return self.requested

    def _handle(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self.requested == number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.requested == number and now - self._time > _TOGETHER:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if self.requested != number:
            self.requested, self._time = signal.Signals(number), now
        if self._sync is not None:
            signal.raise_signal(signal.SIGTERM)
