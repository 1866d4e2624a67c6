"""A run that was killed ends as one that was not, bit for bit."""

import signal

from tests.faults import FAULTS
from tests.launcher import finished, launcher, reference  # noqa: F401
from tests.outcomes import Outcome

# One run after another dies in the same workdir; tests/slow has more of them, and each alone.
NAMES = ["line half written", "no manifest", "just set aside"]


def test_killed_at_named_points(launcher, reference, tmp_path):
    assert_killed_and_finished(NAMES, launcher, reference, tmp_path / "workdir")


def assert_killed_and_finished(names, launcher, reference, workdir):
    for name in names:
        trainer = launcher.start(workdir, fault=FAULTS[name])
        assert trainer.wait() == -signal.SIGKILL, f"{name}: {trainer.said()}"
    launcher.finish(workdir)
    assert Outcome.of(workdir) == reference
