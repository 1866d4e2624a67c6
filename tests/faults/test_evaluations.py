"""Evaluations that are due are neither lost nor repeated, whatever ends the run."""

import os
import signal
import subprocess
import sys

import pytest

from tests.checkpoints.trees import flip
from tests.faults import Fault, die_after, die_before
from tests.launcher import launcher, reference  # noqa: F401
from tests.outcomes import Outcome
from tests.test_processes import ROOT, finish, rows, start
from tests.tiny import tiny_flags

PLATEAU = {
    "schedule.name": "plateau",
    "schedule.patience": 1,
    "schedule.min_improvement": 100.0,  # each evaluation but the first divides the rate
}
LINE = "resnet_jax.training.logging:MetricsLog.write"
KILLS = {
    "before the save": Fault("resnet_jax.checkpoints:Checkpoints.save", "20", die_before),
    "after the save": Fault("os:replace", "*|*/checkpoints/20/manifest.json", die_after),
    "before the line": Fault(LINE, "20|test", die_before),
    "after the line": Fault(LINE, "20|test", die_after),
    "before the mark": Fault("os:replace", "*|*/metric-20.json", die_before),
    "after the mark": Fault("os:replace", "*|*/metric-20.json", die_after),
}


@pytest.fixture(scope="module")
def divided(launcher, tmp_path_factory):
    """What an undisturbed run with the plateau schedule leaves."""
    workdir = tmp_path_factory.mktemp("divided") / "workdir"
    launcher.finish(workdir, **PLATEAU)
    return Outcome.of(workdir)


def kill(name, launcher, workdir):
    trainer = launcher.start(workdir, fault=KILLS[name], **PLATEAU)
    assert trainer.wait() == -signal.SIGKILL, f"{name}: {trainer.said()}"


def test_killed_at_each_moment_of_an_evaluation(launcher, divided, tmp_path):
    for name in KILLS:
        kill(name, launcher, tmp_path / "workdir")
    # A damaged mark is noticed, and evaluated again.
    flip(tmp_path / "workdir" / "checkpoints" / "metric-20.json", 40)
    said = launcher.finish(tmp_path / "workdir", **PLATEAU)
    assert "evaluation of checkpoint 20 is damaged (metric-20.json is not what was written)" in said
    assert Outcome.of(tmp_path / "workdir") == divided


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_killed_once(name, launcher, divided, tmp_path):
    kill(name, launcher, tmp_path / "workdir")
    launcher.finish(tmp_path / "workdir", **PLATEAU)
    assert Outcome.of(tmp_path / "workdir") == divided


def test_a_last_evaluation_that_was_lost_is_made_up_for(launcher, reference, tmp_path):
    workdir = tmp_path / "workdir"
    fault = Fault(LINE, "30|test", die_before)
    assert launcher.start(workdir, fault=fault).wait() == -signal.SIGKILL
    assert "nothing to do" not in launcher.finish(workdir)
    assert Outcome.of(workdir) == reference
    assert "the run is complete at step 30; nothing to do" in launcher.finish(workdir)


@pytest.mark.slow
def test_what_the_last_mark_makes_needless_is_deleted_by_the_next_start(launcher, tmp_path):
    """Checkpoint 40 was the best before that of step 60."""
    settings = {"total_steps": 60, "checkpoint_every": 8, "eval_every": 20}
    launcher.finish(tmp_path / "whole", **settings)
    fault = Fault("os:replace", "*|*/metric-60.json", die_after)
    trainer = launcher.start(tmp_path / "killed", fault=fault, **settings)
    assert trainer.wait() == -signal.SIGKILL
    assert (tmp_path / "killed" / "checkpoints" / "40").exists()
    launcher.finish(tmp_path / "killed", **settings)
    assert Outcome.of(tmp_path / "killed") == Outcome.of(tmp_path / "whole")


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGUSR1]
)
def test_a_signal_ends_an_evaluation(number, launcher, reference, tmp_path):
    workdir = tmp_path / "workdir"
    fault = [f"{number.name} in an evaluation", tmp_path / "time"]
    command = [sys.executable, "tests/failing_process.py", *fault, f"--workdir={workdir}"]
    ended = subprocess.run(
        [*command, *tiny_flags()],
        cwd=ROOT,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert ended.returncode == 75, ended.stderr
    assert f"train.py: interrupted by {number.name} and saved at step 10; " in ended.stderr
    assert [row["split"] for row in rows(workdir)] == ["train"]
    launcher.finish(workdir)
    assert Outcome.of(workdir) == reference


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_ends_the_evaluation_of_both(number, tmp_path):
    flags = tiny_flags(eval_batch_size=4, total_steps=12)
    statuses, outputs = finish(start("train.py", f"--workdir={tmp_path / 'whole'}", *flags))
    assert statuses == [0, 0], outputs
    flags = [f"--workdir={tmp_path / 'parts'}", *flags]
    faults = ["slow evaluation", f"{number.name} in an evaluation"]
    before = [(fault, tmp_path / "time") for fault in faults]
    statuses, outputs = finish(start("tests/failing_process.py", *flags, before=before))
    assert statuses == [75, 75], outputs
    assert all("saved at step 10; " in errors for _, errors in outputs)
    assert [row["split"] for row in rows(tmp_path / "parts")] == ["train"]
    statuses, outputs = finish(start("train.py", *flags))
    assert statuses == [0, 0], outputs
    whole, parts = (tmp_path / name / "metrics.jsonl" for name in ("whole", "parts"))
    assert parts.read_bytes() == whole.read_bytes()
