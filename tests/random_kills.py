"""Kills that come at any time."""

import dataclasses
import pathlib
import signal
import time
from typing import Any

import numpy as np

from tests.launcher import Launcher
from tests.outcomes import Outcome

_INTRODUCTION = "parameters"  # a word of the line that comes when a run has been set up


@dataclasses.dataclass(frozen=True)
class Pace:
    """Seconds from when a trainer introduces itself to its first log, and to its end."""

    first: float
    whole: float


def kill_at_random(
    launcher: Launcher, workdir: pathlib.Path, expected: Outcome, times: int, **overrides: Any
) -> None:
    """Kills one run at this many random moments, and expects it to end like the other.

    One that has ended too early for the next kill is begun anew.
    """
    random = np.random.default_rng(times)
    pace = _measure_pace(launcher, workdir / "pace", **overrides)
    longest = pace.first + 2 * (pace.whole - pace.first) / times
    killed, name = 0, 0
    while killed < times:
        trainer = launcher.start(workdir / str(name), **overrides)
        trainer.wait_until_said(_INTRODUCTION)
        time.sleep(random.uniform(0, longest))
        trainer.send(signal.SIGKILL)
        status = trainer.wait()
        assert status in (0, -signal.SIGKILL), trainer.said()
        if status == 0:
            assert Outcome.of(workdir / str(name)) == expected
            name += 1
        killed += status != 0
    launcher.finish(workdir / str(name), **overrides)
    assert Outcome.of(workdir / str(name)) == expected


def _measure_pace(launcher: Launcher, workdir: pathlib.Path, **overrides: Any) -> Pace:
    trainer = launcher.start(workdir, **overrides)
    trainer.wait_until_said(_INTRODUCTION)
    start = time.monotonic()
    trainer.wait_until_said("loss")
    first = time.monotonic() - start
    assert trainer.wait() == 0
    return Pace(first, time.monotonic() - start)
