"""Two processes, of which one meets an error: both end, and what they learned is kept."""

import numpy as np
import pytest

from resnet_jax.data import load_source
from resnet_jax.data.order import Order
from tests.data.pictures import write_folder
from tests.outcomes import read_checkpoints
from tests.test_processes import finish, start
from tests.tiny import tiny_flags

IMAGES, BATCH, STEPS = 200, 16, 12
SLOW = pytest.mark.slow


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    classes = ("ant", "bee")
    write_folder(
        folder, {"train": dict.fromkeys(classes, IMAGES // 2), "val": dict.fromkeys(classes, 8)}
    )
    return folder


def flags_of(root, workdir, **overrides):
    options = {
        "data.source": "folder",
        "data.path": root,
        "data.eval_split": "val",
        "data.in_memory": False,
        "data.augment": "inception_crop",
        "data.mean": "none",
        "data.std": "none",
        "data.max_bad_share": 1.0,
        "eval_batch_size": 16,
        "total_steps": STEPS,
        **overrides,
    }
    return [f"--workdir={workdir}", *tiny_flags(**options)]


def damage(root, split, index):
    key = load_source("folder", split, path=root)[index].key
    (root / key).write_bytes(b"no image")
    return key


def damage_batch(root, step):
    """Damages an image that the second process meets first in the batch after this step."""
    return damage(root, "train", int(Order(IMAGES, BATCH, 0).indices(step)[BATCH // 2 + 3]))


def saved(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


@pytest.mark.parametrize(
    "step", [6, *(pytest.param(step, marks=SLOW) for step in (0, 1, 3, 4, STEPS - 1))]
)
def test_one_that_finds_too_many_bad_examples_ends_both_after_what_both_have(root, tmp_path, step):
    damage_batch(root, step)
    run = tmp_path / "run"
    flags = flags_of(root, run)
    none = ["--config.data.max_bad_share=0.0"]
    statuses, outputs = finish(start("train.py", *flags, of_second=none))
    assert statuses == [2, 2], outputs
    (_, first), (_, second) = outputs
    assert "1 of the 200 examples of train cannot be read, which is more than" in second
    assert first.splitlines()[-1].endswith("(process 1)")
    assert "1 of the 200 examples of train cannot be read, which is more than" in first
    assert "Traceback" not in first + second
    assert saved(run)[-1:] == ([step] if step else [])

    # And it is as if nothing had been, once more are allowed.
    statuses, outputs = finish(start("train.py", *flags))
    assert statuses == [0, 0], outputs
    assert f"going on from step {step}" in outputs[0][1] or not step
    whole = tmp_path / "whole"
    statuses, outputs = finish(start("train.py", *flags_of(root, whole)))
    assert statuses == [0, 0], outputs
    assert (run / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    mine, its = (read_checkpoints(workdir)[STEPS] for workdir in (run, whole))
    assert mine.keys() == its.keys()
    for name, leaf in mine.items():
        np.testing.assert_array_equal(leaf, its[name])


def test_a_ledger_that_one_cannot_write_ends_both_after_a_save(root, tmp_path):
    damage_batch(root, 6)
    run = tmp_path / "run"
    (run / "bad_records").mkdir(parents=True)
    (run / "bad_records" / "1.jsonl").symlink_to(tmp_path / "absent" / "disk")
    statuses, outputs = finish(start("train.py", *flags_of(root, run)))
    assert statuses == [1, 1], outputs
    (_, first), (_, second) = outputs
    assert second.splitlines()[-1].startswith("FileNotFoundError: ")
    assert first.splitlines()[-1].startswith("train.py: FileNotFoundError: ")
    assert first.splitlines()[-1].endswith("(process 1)")
    assert saved(run)[-1] == 6


@SLOW
def test_a_log_that_the_first_cannot_open_ends_both(root, tmp_path):
    run = tmp_path / "run"
    flags = flags_of(root, run, total_steps=4)
    assert finish(start("train.py", *flags))[0] == [0, 0]
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(tmp_path / "absent" / "disk")
    statuses, outputs = finish(start("train.py", *flags))
    assert statuses == [1, 1], outputs
    assert outputs[1][1].splitlines()[-1].endswith("(process 0)")


@SLOW
def test_a_workdir_that_the_first_refuses_ends_both(root, tmp_path):
    run = tmp_path / "run"
    assert finish(start("train.py", *flags_of(root, run, total_steps=4)))[0] == [0, 0]
    statuses, outputs = finish(start("train.py", *flags_of(root, run, total_steps=4, seed=1)))
    assert statuses == [2, 2], outputs
    for _, errors in outputs:
        assert "is the workdir of another config (seed: 0 there, 1 here)" in errors
