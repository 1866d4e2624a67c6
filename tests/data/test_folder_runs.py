"""Whole runs on a small folder of images, decoded as they are read."""

import json

import jax
import numpy as np
import pytest

from resnet_jax import InputError
from resnet_jax.evaluation import evaluate
from resnet_jax.training import train
from resnet_jax.training.run import Run
from tests.data.pictures import write_folder
from tests.tiny import tiny_config

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "root"
    write_folder(folder, {"train": dict.fromkeys(CLASSES, 30), "val": dict.fromkeys(CLASSES, 7)})
    return folder


def config_of(root, **overrides):
    return tiny_config(
        **{
            "data.source": "folder",
            "data.path": str(root),
            "data.eval_split": "val",
            "data.in_memory": False,
            "data.augment": "scale_jitter",
            "data.eval_resize": 9,
            "total_steps": 20,
            "log_every": 5,
            "eval_every": 10,
            "schedule.name": "plateau",  # whose state is in the checkpoints
            "schedule.patience": 1,
            "schedule.factor": 0.7,
            **overrides,
        }
    )


def assert_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "workdir"
    return workdir, jax.device_get(train(config_of(root), workdir))


def test_a_run_learns_and_is_evaluated(finished):
    workdir, _ = finished
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    assert losses[-1] < 0.9 * losses[0]
    assert evaluate(workdir, split="train[-50%:]").examples == 45


def test_evaluation_of_the_training_images_has_no_random_crops(root):
    run = Run.from_config(config_of(root))
    everything = np.arange(90)
    crops = run.augmentation.crops
    assert crops is not None
    view, _ = run.train_images.read(everything)
    pixels = np.concatenate([batch["image"] for batch in run.batches(0)])[:90]
    assert {image.tobytes() for image in view}.isdisjoint(image.tobytes() for image in pixels)


def test_going_on_after_a_stop_changes_nothing(finished, root, tmp_path):
    _, expected = finished
    train(config_of(root, total_steps=10), tmp_path)
    state = train(config_of(root, **{"data.workers": 3}), tmp_path)
    assert_equal(jax.device_get(state), expected)


def test_images_in_memory_are_the_same(root):
    runs = [
        Run.from_config(
            config_of(root, **{"data.augment": "pad_crop_flip", "data.in_memory": in_memory})
        )
        for in_memory in (True, False)
    ]
    assert_equal(*(list(run.batches(0)) for run in runs))
    assert_equal(*(run.measure_statistics() for run in runs))


def test_random_crops_need_images_that_are_decoded_as_they_are_read(root, tmp_path):
    with pytest.raises(InputError) as error:
        train(config_of(root, **{"data.in_memory": True}), tmp_path / "workdir")
    assert str(error.value) == (
        "data.augment 'scale_jitter' crops images as they are decoded; it needs data.in_memory to "
        "be False"
    )
    assert not (tmp_path / "workdir").exists()


def test_a_broken_image_ends_a_run_that_allows_none(root, tmp_path):
    copy = tmp_path / "root"
    write_folder(copy, {"train": {"a": 20, "b": 20}, "val": {"a": 1, "b": 1}})
    victim = copy / "train" / "a" / "0007.jpg"
    victim.write_bytes(victim.read_bytes()[:300])
    config = config_of(copy)
    config.data.max_bad_share = 0.0
    with pytest.raises(InputError, match=r"image train/a/0007\.jpg cannot be decoded: "):
        train(config, tmp_path / "workdir")
