"""A run goes on after a signal, after damage and after its end."""

import re
import shutil
import signal
from pathlib import Path

import pytest

from resnet_jax.training import train
from tests.checkpoints.trees import listing
from tests.launcher import finished, launcher, reference  # noqa: F401
from tests.outcomes import Outcome, read_checkpoints
from tests.tiny import tiny_config


def test_a_run_that_is_complete_stays_as_it_is(tmp_path, capfd):
    workdir = shutil.copytree(Path(__file__).parent / "pins" / "run", tmp_path / "workdir")
    before = listing(workdir / "checkpoints")
    for total_steps in (30, 9):
        assert train(tiny_config(total_steps=total_steps), workdir).step == 30
        assert "the run is complete at step 30; nothing to do" in capfd.readouterr().err
    assert listing(workdir / "checkpoints") == before


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_damaged_checkpoint_gives_way_to_the_one_before(launcher, finished, reference, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "workdir")
    (file,) = (workdir / "checkpoints" / "30").glob("training/d/*")
    assert_damage_is_mended(file, launcher, workdir, reference)


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
