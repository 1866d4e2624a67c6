"""A run whose devices and processes change from one start to the next."""

import shutil

import numpy as np
import pytest

from resnet_jax.training.run import Run
from tests import examples
from tests.examples import Record
from tests.launcher import launcher  # noqa: F401
from tests.outcomes import read_checkpoints
from tests.tiny import tiny_config

SETTINGS = {"model.bn_group_size": 4, "log_every": 100, "eval_every": 100, "checkpoint_every": 2}
TURNS = [(1, 2), (1, 1), (1, 8), (2, 2), (1, 4), (2, 1), (1, 1)]  # processes, devices of each


def go_on(launcher, workdir, step, processes, devices):
    """Trains until a step; returns the examples of the steps as all of the processes took them."""
    records = [Record(workdir.parent / f"{step}-{number}") for number in range(processes)]
    options = {"devices": devices, "total_steps": step, **SETTINGS}
    if processes == 2:
        trainers = launcher.start_pair(workdir, records=[[one] for one in records], **options)
    else:
        trainers = [launcher.start(workdir, records=records, **options)]
    assert [trainer.wait() for trainer in trainers] == [0] * processes, trainers[0].said()
    assert f"{processes * devices} x cpu" in trainers[0].said()
    first, *others = [examples.read(record.path) for record in records]
    return {step: sum((other[step] for other in others), rows) for step, rows in first.items()}


def assert_equal_to_rounding(one, other):
    assert one.keys() == other.keys()
    for name in one:
        allowed = 2e-6 * max(1, float(np.abs(one[name]).max()))
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=allowed, err_msg=name)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_examples_stay_and_the_next_step_is_equal_to_rounding(launcher, tmp_path):
    for name in ("alone", "turns", *map(str, range(len(TURNS)))):
        (tmp_path / name).mkdir()
    alone, run = tmp_path / "alone" / "run", tmp_path / "turns" / "run"
    taken = {}
    for step, (processes, devices) in enumerate(TURNS, start=1):
        # The same step on one device, from the same checkpoint.
        copy = tmp_path / str(step - 1) / "run"
        if step > 1:
            shutil.copytree(run, copy)
        go_on(launcher, copy, step, 1, 1)
        taken |= go_on(launcher, run, step, processes, devices)
        assert_equal_to_rounding(read_checkpoints(copy)[step], read_checkpoints(run)[step])
    expected = go_on(launcher, alone, len(TURNS), 1, 1)
    assert taken == expected

    keys = Run.from_config(tiny_config(total_steps=len(TURNS), **SETTINGS))
    for step, rows in expected.items():
        assert [f"digits/{number:04}" for number, _ in rows] == keys.example_keys(step)
