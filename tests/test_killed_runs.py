"""A run that was killed ends as one that was not, bit for bit, wherever it was killed.

The tiny run logs at 7, 14, 21, 28, 30; evaluates at 10, 20, 30; saves at 4, 8, 10, 12, 16, 20, 24,
28, 30.
"""

import random
import signal
import time

import pytest

from tests.faults import (
    Fault,
    die_after,
    die_before,
    die_half_way,
    die_with_half_a_file,
    die_with_half_a_folder,
    die_with_half_a_line,
)
from tests.launcher import Outcome, finished, launcher, reference  # noqa: F401

LOG = "resnet_jax.training.metrics:MetricsLog.write"

UNMANIFESTED = Fault("os:rename", "*|*/checkpoints/16", die_after)
LOGGED = Fault(LOG, "21|train", die_after)

FAULTS = {
    "config half written": [Fault("os:replace", "*|*/config.json", die_with_half_a_file)],
    "first save half written": [Fault("os:rename", "*|*/4.*/training", die_before)],
    "save half written": [Fault("os:rename", "*|*/20.*/training", die_before)],
    "save written": [Fault("os:rename", "*|*/checkpoints/12", die_before)],
    "no manifest yet": [UNMANIFESTED],
    "no manifest yet of the last": [Fault("os:rename", "*|*/checkpoints/30", die_after)],
    "manifest half written": [
        Fault("os:replace", "*|*/checkpoints/10/manifest.json", die_with_half_a_file)
    ],
    "manifest written": [Fault("os:replace", "*|*/checkpoints/20/manifest.json", die_after)],
    "old one about to be deleted": [Fault("os:rename", "*|*/removing/*", die_after)],
    "old one half deleted": [Fault("shutil:rmtree", "*/removing", die_with_half_a_folder)],
    "line half written": [Fault(LOG, "14|train", die_with_half_a_line)],
    "line written": [LOGGED],
    "evaluation half done": [
        Fault("resnet_jax.evaluation.single_crop:eval_batches", "", die_half_way)
    ],
    "evaluation not saved": [Fault("resnet_jax.checkpoints:Checkpoints.save", "20", die_before)],
    "curves half drawn": [Fault("os:replace", "*|*/curves.png", die_with_half_a_file)],
    # Killed again, when it goes on.
    "lines half removed": [LOGGED, Fault("os:replace", "*|*/metrics.jsonl", die_with_half_a_file)],
    "not yet set aside": [UNMANIFESTED, Fault("os:rename", "*|*/set_aside/*", die_before)],
    "just set aside": [UNMANIFESTED, Fault("os:rename", "*|*/set_aside/*", die_after)],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_killed_at(faults, launcher, reference, tmp_path):
    workdir = tmp_path / "workdir"
    for fault in faults:
        trainer = launcher.start(workdir, fault=fault)
        assert trainer.wait() == -signal.SIGKILL, trainer.said()
    launcher.finish(workdir)
    assert Outcome.of(workdir) == reference
