"""Whole runs whose images have random colours."""

import json

import jax
import numpy as np
import pytest

from resnet_jax import InputError
from resnet_jax.checkpoints import Checkpoints
from resnet_jax.data import preprocess
from resnet_jax.evaluation import evaluate, restore
from resnet_jax.training import train
from resnet_jax.training.run import Run
from tests.data.pictures import write_folder
from tests.tiny import SELDOM, tiny_config

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "root"
    write_folder(folder, {"train": dict.fromkeys(CLASSES, 12), "val": dict.fromkeys(CLASSES, 3)})
    return folder


def config_of(root, **overrides):
    usual = {
        "data.source": "folder",
        "data.path": str(root),
        "data.eval_split": "val",
        "data.in_memory": False,
        "data.augment": "scale_jitter",
        "data.color": "pca",
        "total_steps": 8,
    }
    return tiny_config(**{**SELDOM, **usual, **overrides})


def assert_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "workdir"
    return workdir, jax.device_get(train(config_of(root), workdir))


def test_components_are_saved_with_the_run(finished, root):
    trained = restore(finished[0])
    measured = Run.from_config(config_of(root)).measure_statistics()
    assert trained.statistics.color is not None
    assert trained.statistics.color.shape == (3, 3)
    assert_equal(trained.statistics, measured)
    assert evaluate(finished[0]).examples == 9


def test_going_on_after_a_stop_changes_nothing(finished, root, tmp_path):
    train(config_of(root, total_steps=4), tmp_path / "run")
    assert_equal(jax.device_get(train(config_of(root), tmp_path / "run")), finished[1])


@pytest.mark.parametrize(
    "change", [{"data.color": "none"}, {"data.color": "pca_imagenet"}, {"data.color_std": 0.2}]
)
def test_colours_make_another_run(finished, root, change):
    (key, value), *_ = change.items()
    with pytest.raises(InputError, match=rf"{key}: .* there, {value!r} here"):
        train(config_of(root, **change), finished[0])
    one, other = (
        preprocess(next(run.batches(0)), run.measure_statistics(), padding=0)
        for run in (Run.from_config(config_of(root)), Run.from_config(config_of(root, **change)))
    )
    assert not np.array_equal(one, other)


def test_the_batch_carries_the_same_colours_to_any_number_of_processes(root):
    run = Run.from_config(config_of(root, batch_size=16))
    batch = next(run.batches(3))
    assert batch["color"].shape == (16, 3)
    assert batch["color"].dtype == np.float32
    assert (batch["color"] != next(run.batches(4))["color"]).all()


def test_fine_tuning_measures_components_of_its_own(finished, root):
    source = str(finished[0])
    run = Run.from_config(config_of(root, **{"init.source": source, "data.train_split": "val"}))
    _, statistics = run.begin()
    there = restore(finished[0]).statistics
    assert_equal((statistics.mean, statistics.std), (there.mean, there.std))
    assert_equal(statistics.color, run.measure_statistics().color)
    assert not np.allclose(statistics.color, there.color)
    plain = Run.from_config(config_of(root, **{"init.source": source, "data.color": "none"}))
    assert plain.begin()[1].color is None


@pytest.mark.parametrize("color", ["pca", "pca_imagenet"])
def test_grey_images_are_refused_before_anything_is_written(tmp_path, color):
    with pytest.raises(InputError, match="red, green and blue, and these have 1 channel"):
        train(tiny_config(**{"data.color": color}), tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.color": "pcb"}, "there is no kind of random colours 'pcb'; did you mean pca?"),
        ({"data.color_std": -1.0}, "coefficients of colour is 0 or more, and -1.0 is not"),
    ],
)
def test_wrong_colours_are_refused_before_anything_is_written(root, tmp_path, change, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        train(config_of(root, **change), tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_from_before_there_were_colours_goes_on(tmp_path):
    workdir = tmp_path / "run"
    whole = jax.device_get(train(tiny_config(**SELDOM, total_steps=8), tmp_path / "whole"))
    train(tiny_config(**SELDOM, total_steps=4), workdir)
    # Its config had no such keys, and its checkpoints have no components.
    path = workdir / "config.json"
    config = json.loads(path.read_text())
    del config["data"]["color"], config["data"]["color_std"]
    path.write_text(json.dumps(config))
    with Checkpoints(workdir / "checkpoints", writable=False) as checkpoints:
        measured = {"mean": jax.ShapeDtypeStruct((8, 8, 1), np.float32)}
        with pytest.raises(InputError, match=r"measured/std is float32\[1\] in it, absent here"):
            checkpoints.restore("newest", {"measured": measured})
    assert evaluate(workdir).examples == 360
    assert_equal(jax.device_get(train(tiny_config(**SELDOM, total_steps=8), workdir)), whole)
    assert json.loads(path.read_text())["data"]["color"] == "none"
