"""The same as `tests/test_killed_runs.py` and `tests/test_resumed_runs.py`, to the full."""

import shutil
import signal

import pytest

from tests.faults import FAULTS
from tests.launcher import finished, launcher, reference  # noqa: F401
from tests.outcomes import Outcome
from tests.random_kills import kill_at_random
from tests.test_resumed_runs import assert_agree, assert_damage_is_mended

pytestmark = pytest.mark.slow

# What happens only when a run goes on that died of another fault.
AFTER = {
    "lines half removed": "line not saved",
    "unfinished half deleted": "save not in place",
    "not yet set aside": "no manifest",
    "just set aside": "no manifest",
}


@pytest.mark.parametrize("name", FAULTS)
def test_killed_once(name, launcher, reference, tmp_path):
    workdir = tmp_path / "workdir"
    for point in [AFTER[name], name] if name in AFTER else [name]:
        trainer = launcher.start(workdir, fault=FAULTS[point])
        assert trainer.wait() == -signal.SIGKILL, trainer.said()
    launcher.finish(workdir)
    assert Outcome.of(workdir) == reference


def test_killed_ten_times_at_random_moments(launcher, tmp_path):
    launcher.finish(tmp_path / "reference", total_steps=150)
    expected = Outcome.of(tmp_path / "reference")
    kill_at_random(launcher, tmp_path, expected, times=10, total_steps=150)


def test_damage_to_any_file_is_mended(launcher, finished, reference, tmp_path):
    newest = finished / "checkpoints" / "30"
    names = [path.relative_to(finished) for path in newest.rglob("*") if path.is_file()]
    assert len(names) > 20
    for number, name in enumerate(sorted(names)):
        workdir = shutil.copytree(finished, tmp_path / str(number))
        assert_damage_is_mended(workdir / name, launcher, workdir, reference)


@pytest.mark.parametrize("devices", [1, 4])
def test_the_number_of_devices_may_change(devices, launcher, tmp_path):
    assert_agree((2, devices), launcher, tmp_path)
