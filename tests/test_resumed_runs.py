"""A run goes on after a signal, after damage, after its end, and on other devices."""

import re
import shutil
import signal

import numpy as np
import pytest

from tests.faults import Fault, press_ctrl_c_twice
from tests.launcher import finished, launcher, reference  # noqa: F401
from tests.outcomes import Outcome, read_checkpoints


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "workdir")


def test_runs_that_nothing_happens_to_are_equal(launcher, reference, tmp_path):
    launcher.finish(tmp_path / "workdir")
    assert Outcome.of(tmp_path / "workdir") == reference


def test_a_run_that_is_complete_stays_as_it_is(launcher, copied, reference):
    assert "the run is complete at step 30; nothing to do" in launcher.finish(copied)
    assert Outcome.of(copied) == reference
    assert "the run is complete at step 30; nothing to do" in launcher.finish(copied, total_steps=9)
    assert Outcome.of(copied).checkpoints == reference.checkpoints


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_saves(number, launcher, reference, tmp_path):
    workdir = tmp_path / "workdir"
    trainer = launcher.start_command(workdir)
    trainer.wait_until_said("step  7/30")
    trainer.send(number)
    assert trainer.wait() == 75, trainer.said()
    *_, last = trainer.said().splitlines()
    message = re.fullmatch(
        rf"train\.py: interrupted by {number.name} and saved at step (\d+); "
        rf"the same command goes on from there \(the workdir is {workdir}\)",
        last,
    )
    assert message, trainer.said()
    step = int(message[1])
    assert max(read_checkpoints(workdir)) == step
    assert f"going on from step {step}" in launcher.finish(workdir)
    assert_same_end(workdir, reference)


def assert_same_end(workdir, reference):
    """Which of the older checkpoints are left depends on where the run was interrupted."""
    outcome = Outcome.of(workdir)
    for field in ("config", "metrics", "curves", "scalars"):
        assert getattr(outcome, field) == getattr(reference, field)
    assert outcome.checkpoints[30] == reference.checkpoints[30]


def test_a_second_ctrl_c_ends_it_at_once(launcher, reference, tmp_path):
    workdir = tmp_path / "workdir"
    fault = Fault("resnet_jax.checkpoints:Checkpoints.save", "12", press_ctrl_c_twice)
    trainer = launcher.start(workdir, fault=fault)
    assert trainer.wait() != 0
    *_, last = trainer.said().splitlines()
    assert last == "KeyboardInterrupt"
    assert "going on from step 12" in launcher.finish(workdir)
    assert Outcome.of(workdir) == reference


@pytest.mark.parametrize("kind", ["training/d/*", "variables/manifest.ocdbt", "manifest.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(kind, launcher, copied, reference):
    (file,) = (copied / "checkpoints" / "30").glob(kind)
    assert_damage_is_mended(file, launcher, copied, reference)


def assert_damage_is_mended(file, launcher, workdir, reference):
    """One byte of a file of checkpoint 30 is changed, and the run started again."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    said = launcher.finish(workdir).splitlines()
    (line,) = (line for line in said if line.startswith("checkpoint"))
    assert re.fullmatch(
        r"checkpoint 30 is damaged \(.* is not what was written\): "
        rf"set aside as {workdir}/checkpoints/set_aside/30-1; checkpoint 28 is used",
        line,
    )
    assert Outcome.of(workdir) == reference


def test_a_complete_run_is_extended(launcher, reference, tmp_path):
    workdir = tmp_path / "workdir"
    launcher.finish(workdir, total_steps=14)
    assert "going on from step 14" in launcher.finish(workdir)
    outcome = Outcome.of(workdir)
    assert outcome.checkpoints == reference.checkpoints
    *lines, _ = outcome.metrics.splitlines(keepends=True)
    (extra,) = (line for line in lines if line.startswith(b'{"step": 14, "split": "test"'))
    assert outcome.metrics.replace(extra, b"") == reference.metrics


def test_it_goes_on_on_another_number_of_devices(launcher, tmp_path):
    assert_agree((2, 4), launcher, tmp_path)


def assert_agree(counts, launcher, folder):
    """A run that was begun on 2 devices takes the same two steps on each of these numbers."""
    settings = {"model.bn_group_size": 4, "checkpoint_every": 2}
    launcher.finish(folder / "begun", total_steps=8, **settings)
    ends = []
    for devices in counts:
        workdir = shutil.copytree(folder / "begun", folder / str(devices))
        launcher.finish(workdir, total_steps=10, devices=devices, **settings)
        ends.append(read_checkpoints(workdir)[10])
    first, *others = ends
    for other in others:
        assert other.keys() == first.keys()
        for name in first:
            np.testing.assert_allclose(other[name], first[name], rtol=1e-4, atol=1e-6, err_msg=name)
