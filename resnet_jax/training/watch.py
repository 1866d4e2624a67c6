"""The phases of a run: the share of time that each takes, and a time-out for each."""

import contextlib
import dataclasses
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, Self, TypeAlias, TypeVar, get_args

from resnet_jax import parallel

T = TypeVar("T")

Phase: TypeAlias = Literal["step", "input", "save", "evaluation", "start"]
"""The start lasts until the first step is done; steps that are taken again are part of it."""

EXIT_HUNG = 75  # EX_TEMPFAIL: start me again
_TICK = 0.5  # seconds


@dataclasses.dataclass(frozen=True)
class _Doing:
    phase: Phase
    since: float


class Watch:
    """Measures the phases of a run; as a context manager it ends a process that hangs in one.

    A thread writes the stacks of all threads and a sentence to `sys.stderr`, and ends the process
    with status 75, when a phase lasts longer than its limit without progress. Time in which the
    process was stopped (SIGSTOP, a laptop that sleeps) does not count.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins with the start, without limits; `clock` is for tests."""
        self._clock = clock
        self._seconds: dict[Phase, float] = dict.fromkeys(get_args(Phase), 0.0)
        self._doing = _Doing("start", clock())
        self._step: int | None = None  # the last one
        self._limits: Mapping[str, float | None] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._guard, name="watch", daemon=True)

    def limit(self, limits: Mapping[str, float | None]) -> None:
        """Sets the seconds without progress in each phase, and until the `first_step` is done."""
        self._limits = limits

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    @contextlib.contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Counts the time inside for a phase, and not for the one around it."""
        around = self._doing.phase
        self._begin(phase)
        try:
            yield
        finally:
            self._begin(around)

    def each(self, phase: Phase, items: Iterable[T]) -> Iterator[T]:
        """Yields the items; the time in which the next one is waited for counts for the phase."""
        iterator = iter(items)
        while True:
            with self.phase(phase):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def progress(self) -> None:
        """Says that the phase has come on, such as by a batch of an evaluation."""
        self._begin(self._doing.phase)

    def stepped(self, step: int, *, again: bool) -> None:
        """Says that a step was taken; `again` if a process before this one had taken it, too."""
        self._begin("start" if again else "step")
        self._step = step

    def shares(self) -> dict[str, float]:
        """Returns the percent of the time until now that each phase has taken."""
        self.progress()
        whole = sum(self._seconds.values())
        return {phase: 100 * seconds / whole for phase, seconds in self._seconds.items()}

    def _begin(self, phase: Phase) -> None:
        now = self._clock()
        self._seconds[self._doing.phase] += now - self._doing.since
        self._doing = _Doing(phase, now)

    def _guard(self) -> None:
        doing, waited, then = self._doing, 0.0, time.monotonic()
        while not self._end.wait(_TICK):
            now = time.monotonic()
            passed, then = min(now - then, 2 * _TICK), now
            waited = waited + passed if doing is self._doing else 0.0
            doing = self._doing
            limited = "first_step"
            if self._step is not None:
                limited = "step" if doing.phase == "start" else doing.phase
            limit = self._limits.get(limited)
            if limit is not None and waited > limit:
                self._leave(doing.phase, limited, limit)

    def _leave(self, phase: Phase, limited: str, limit: float) -> None:
        faulthandler.dump_traceback(all_threads=True)
        place = "first step" if self._step is None else f"{phase} after step {self._step}"
        print(
            f"{parallel.process_name()} has hung for {limit:g} s (timeouts.{limited}) in its "
            f"{place}, see the stacks above; the same command goes on from the newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_HUNG)  # nothing that waits for a thread
