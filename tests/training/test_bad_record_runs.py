"""Whole runs on folders of which some images are damaged."""

import errno

import jax
import numpy as np
import pytest

from resnet_jax import InputError
from resnet_jax.data import load_source, read_ledger
from resnet_jax.data.draws import Order
from resnet_jax.training import train
from resnet_jax.training.logging import MetricsLog
from resnet_jax.training.run import Run
from tests.data.pictures import write_folder
from tests.outcomes import read_checkpoints
from tests.tiny import SELDOM, tiny_config

CLASSES = ("ant", "bee")


def damage(root, split, count):
    """Truncates some images of a split; returns their keys."""
    files = sorted((root / split).glob("*/*.jpg"))[:count]
    for file in files:
        file.write_bytes(file.read_bytes()[:-20])
    return {file.relative_to(root).as_posix() for file in files}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    write_folder(folder, {"train": dict.fromkeys(CLASSES, 30), "val": dict.fromkeys(CLASSES, 4)})
    return folder


def config_of(root, **overrides):
    return tiny_config(
        **{
            "data.source": "folder",
            "data.path": str(root),
            "data.eval_split": "val",
            "data.in_memory": False,
            "data.augment": "inception_crop",
            "data.mean": "none",
            "data.std": "none",
            "total_steps": 12,
            "data.max_bad_share": 0.5,
            **overrides,
        }
    )


def test_a_run_notes_what_it_cannot_read_and_goes_on_the_same(root, tmp_path):
    damaged = damage(root, "train", 4)
    whole = jax.device_get(train(config_of(root, **SELDOM), tmp_path / "whole"))
    ledger = read_ledger(tmp_path / "whole" / "bad_records" / "0.jsonl")
    assert {entry["key"] for entry in ledger} == damaged
    assert len(ledger) == 4

    train(config_of(root, **SELDOM, total_steps=6), tmp_path / "parts")
    changed = config_of(root, **SELDOM, **{"data.workers": 1})
    again = jax.device_get(train(changed, tmp_path / "parts"))
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(read_ledger(tmp_path / "parts" / "bad_records" / "0.jsonl")) == 4


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_is_measured_first_is_noted_too(root, tmp_path, in_memory):
    damaged = damage(root, "train", 3)
    options = {"data.mean": "pixel", "data.in_memory": in_memory, "data.augment": "none"}
    run = Run.from_config(config_of(root, **options), ledger=tmp_path / "ledger")
    run.begin()
    run.bad_records.sync()
    assert {entry["key"] for entry in read_ledger(tmp_path / "ledger")} == damaged


@pytest.mark.parametrize("mean", ["none", "pixel"])
def test_too_many_stop_a_run(root, tmp_path, mean):
    damage(root, "train", 20)
    options = {**SELDOM, "data.max_bad_share": 0.01, "data.mean": mean}
    with pytest.raises(InputError) as error:
        train(config_of(root, **options), tmp_path / "run")
    ledger = tmp_path / "run" / "bad_records" / "0.jsonl"
    assert "examples of train cannot be read" in str(error.value)
    assert f"{ledger} lists them" in str(error.value)
    assert read_ledger(ledger)
    # And the workdir can be used, once more are allowed.
    options |= {"data.max_bad_share": 0.9, "total_steps": 1}
    train(config_of(root, **options), tmp_path / "run")


def test_what_was_learned_before_a_bad_example_is_kept(root, tmp_path):
    met = Order(60, 16, 0).indices(2)  # the third step; the last one is saved
    key = load_source("folder", "train", path=root)[int(met[5])].key
    (root / key).write_bytes(b"no image")
    flags = {**SELDOM, "total_steps": 4, "data.max_bad_share": 0.0}
    with pytest.raises(InputError, match="1 of the 60 examples of train cannot be read"):
        train(config_of(root, **flags), tmp_path / "run")
    assert sorted(read_checkpoints(tmp_path / "run")) == [2]
    flags["data.max_bad_share"] = 1.0
    again = jax.device_get(train(config_of(root, **flags), tmp_path / "run"))
    whole = jax.device_get(train(config_of(root, **flags), tmp_path / "whole"))
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_log_that_cannot_be_written_for_a_while_costs_nothing(root, tmp_path, monkeypatch):
    full = [OSError(errno.ENOSPC, "No space left on device")]
    write = MetricsLog.write

    def write_if_there_is_room(log, step, split, values):
        write(log, step, split, values)
        if step == 7 and full:
            raise full.pop()

    monkeypatch.setattr(MetricsLog, "write", write_if_there_is_room)
    with pytest.raises(OSError, match="No space left"):
        train(config_of(root, total_steps=8), tmp_path / "run")
    assert sorted(read_checkpoints(tmp_path / "run")) == [4, 7]
    train(config_of(root, total_steps=8), tmp_path / "run")
    train(config_of(root, total_steps=8), tmp_path / "whole")
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("run", "whole")]
    assert logs[0] == logs[1]


def test_an_evaluation_is_of_all_or_none(root, tmp_path):
    (damaged,) = damage(root, "val", 1)
    with pytest.raises(InputError, match=rf"^image {damaged} cannot be decoded: "):
        train(config_of(root, **SELDOM, total_steps=2), tmp_path / "run")
    # The training until then is not lost.
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]


def test_a_run_does_not_go_on_with_more_or_fewer_examples(root, tmp_path):
    train(config_of(root, **SELDOM, total_steps=1), tmp_path / "run")
    next((root / "train").glob("*/*.jpg")).unlink()
    message = r"^the run has learned from 60 examples of train until now, and there are 59; "
    with pytest.raises(InputError, match=message):
        train(config_of(root, total_steps=8), tmp_path / "run")
