"""A run that was killed ends as one that was not, bit for bit."""

import signal

import pytest

from tests.faults import FAULTS
from tests.launcher import finished, launcher, reference  # noqa: F401
from tests.outcomes import Outcome
from tests.random_kills import kill_at_random

# One run after another dies in the same workdir; tests/slow has each death alone.
CHAINS = {
    "saving": [
        "first save half written",
        "manifest half written",
        "old save half deleted",
        "no manifest",
        "manifest written",
        "no manifest of the last",
    ],
    "logging": [
        "config half written",
        "evaluation half done",
        "line half written",
        "evaluation not saved",
        "line not saved",
        "lines half removed",
        "curves half drawn",
    ],
    "going on": [
        "save not in place",
        "unfinished half deleted",
        "no manifest",
        "not yet set aside",
        "just set aside",
    ],
}


@pytest.mark.parametrize("names", CHAINS.values(), ids=CHAINS)
def test_killed_at_named_points(names, launcher, reference, tmp_path):
    workdir = tmp_path / "workdir"
    for name in names:
        trainer = launcher.start(workdir, fault=FAULTS[name])
        assert trainer.wait() == -signal.SIGKILL, f"{name}: {trainer.said()}"
    launcher.finish(workdir)
    assert Outcome.of(workdir) == reference


def test_killed_at_random_moments(launcher, reference, tmp_path):
    kill_at_random(launcher, tmp_path, reference, times=2)
