"""Runs that are killed, stopped, damaged and moved, to the full."""

import shutil
import signal
import time

import numpy as np
import pytest

from tests.faults import AFTER, FAULTS, Fault, press_ctrl_c_twice
from tests.launcher import finished, launcher, reference  # noqa: F401
from tests.outcomes import Outcome
from tests.test_killed_runs import assert_killed_and_finished
from tests.test_resumed_runs import assert_damage_is_mended

pytestmark = pytest.mark.slow

# One run after another dies in the same workdir.
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
        "evaluation not marked",
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


@pytest.mark.parametrize("name", FAULTS)
def test_killed_once(name, launcher, reference, tmp_path):
    names = [AFTER[name], name] if name in AFTER else [name]
    assert_killed_and_finished(names, launcher, reference, tmp_path / "workdir")


@pytest.mark.parametrize("names", CHAINS.values(), ids=CHAINS)
def test_killed_again_and_again(names, launcher, reference, tmp_path):
    assert_killed_and_finished(names, launcher, reference, tmp_path / "workdir")


def test_killed_ten_times_at_random_moments(launcher, tmp_path):
    """A run that has ended too early for the next kill is begun anew."""
    started = time.monotonic()
    launcher.finish(tmp_path / "reference", total_steps=150)
    longest = time.monotonic() - started
    expected = Outcome.of(tmp_path / "reference")
    random = np.random.default_rng(10)
    killed, name = 0, 0
    while killed < 10:
        trainer = launcher.start(tmp_path / str(name), total_steps=150)
        trainer.wait_until_said("parameters")  # of the line that introduces a run
        time.sleep(random.uniform(0, longest / 5))
        trainer.send(signal.SIGKILL)
        status = trainer.wait()
        assert status in (0, -signal.SIGKILL), trainer.said()
        if status == 0:
            assert Outcome.of(tmp_path / str(name)) == expected
            name += 1
        killed += status != 0
    launcher.finish(tmp_path / str(name), total_steps=150)
    assert Outcome.of(tmp_path / str(name)) == expected


def test_damage_to_any_file_is_mended(launcher, finished, reference, tmp_path):
    newest = finished / "checkpoints" / "30"
    names = [path.relative_to(finished) for path in newest.rglob("*") if path.is_file()]
    assert len(names) > 20
    for number, name in enumerate(sorted(names)):
        workdir = shutil.copytree(finished, tmp_path / str(number))
        assert_damage_is_mended(workdir / name, launcher, workdir, reference)


def test_a_second_ctrl_c_ends_it_at_once(launcher, reference, tmp_path):
    workdir = tmp_path / "workdir"
    fault = Fault("resnet_jax.checkpoints:Checkpoints.save", "12", press_ctrl_c_twice)
    trainer = launcher.start(workdir, fault=fault)
    assert trainer.wait() != 0
    *_, last = trainer.said().splitlines()
    assert last == "KeyboardInterrupt"
    assert "going on from step 12" in launcher.finish(workdir)
    assert Outcome.of(workdir) == reference
