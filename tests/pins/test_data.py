"""Pins of the data: what a seed, a config and a file stand for, to the byte.

`data.json` holds SHA-256 of arrays, and the components of colour as numbers; `images` holds the
files that are decoded. Neither is ever written again: a number that changes is another experiment.
"""

import hashlib
import json
import pathlib
import shutil

import numpy as np
import pytest

from resnet_jax import config as configs
from resnet_jax import data

PINS = pathlib.Path(__file__).parent
PINNED = json.loads((PINS / "data.json").read_text())

AUGMENTATIONS = (
    "none",
    "pad_crop",
    "pad_crop_flip",
    "random_crop",
    "scale_jitter",
    "inception_crop",
)
SIZES = (15, 48)  # smaller than most of the files, and larger


class Recorder:
    """Images that are not there: a batch's pixels are the boxes that were asked for."""

    image_shape = (3, 4, 3)
    class_names = ("a", "b")

    def __init__(self, examples):
        self._examples = examples

    def __len__(self):
        return self._examples

    def read(self, indices, crops=None):
        sizes = [(100, 100), (333, 500), (500, 90)]
        boxes = [
            [] if crops is None else [crops(r, *s) for s in sizes] for r in range(len(indices))
        ]
        return np.array(boxes, np.float64), np.asarray(indices, np.int64)


def digest(*arrays):
    hashed = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        hashed.update(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return hashed.hexdigest()


def of_batches(batches):
    return digest(*(batch[name] for batch in batches for name in sorted(batch)))


def of_source(source):
    """Hashes keys and labels, in their order."""
    return digest(
        np.array([f"{e.key} {e.label}" for e in map(source.__getitem__, range(len(source)))])
    )


def a_config(root, **values):
    config = configs.base_config()
    with config.unlocked():
        config.data.update(
            source="folder",
            path=None if root is None else str(root),
            train_split="train",
            in_memory=False,
            **values,
        )
    return config


def indices_and_draws():
    for seed, examples, batch_size, steps in (
        (0, 1437, 64, (0, 1, 22, 23)),  # the last two run across the end of an epoch
        (1, 50_000, 128, (0, 390, 64_000)),
        (2**64 - 1, 1_281_167, 256, (5004, 600_000)),
        (17, 5, 12, (0, 1, 2)),  # a batch larger than the data set
    ):
        order = data.Order(examples, batch_size, seed)
        for step in steps:
            yield f"indices {seed} {examples} {batch_size} {step}", digest(order.indices(step))
    for name in AUGMENTATIONS:
        for seed, step in ((0, 0), (123, 4567)):
            augmentation = data.augmentation(name, image_size=224, color_std=0.1)
            batches = data.train_batches(
                Recorder(1000),
                augmentation,
                batch_size=96,
                seed=seed,
                start=step,
                stop=step + 2,
                rows=slice(16, 64),
            )
            yield f"draws {name} {seed} {step}", of_batches(batches)


def pixels(root):
    for interpolation in ("bilinear", "bicubic"):
        for size in SIZES:
            for name in AUGMENTATIONS:
                config = a_config(
                    root, image_size=size, augment=name, interpolation=interpolation, color="pca"
                )
                batches = data.train_batches(
                    configs.load_images(config, "train"),
                    configs.build_augmentation(config),
                    batch_size=14,
                    seed=3,
                    start=0,
                    stop=3,
                    rows=slice(0, 14),
                )
                yield f"train {interpolation} {size} {name}", of_batches(batches)
            for split in ("train", "test"):
                config = a_config(
                    root, image_size=size, eval_resize=size * 8 // 7, interpolation=interpolation
                )
                for in_memory in (False, True):
                    config.data.in_memory = in_memory
                    images = configs.load_images(config, split)
                    batches = data.eval_batches(images, batch_size=6, rows=slice(0, 6))
                    name = f"view {interpolation} {size} {split} {in_memory}"
                    yield name, of_batches(batches)


def digits():
    config = configs.base_config()
    config.data.image_size, config.data.augment = 8, "pad_crop"
    batches = data.train_batches(
        configs.load_images(config, "train"),
        configs.build_augmentation(config),
        batch_size=128,
        seed=0,
        start=10,
        stop=13,
        rows=slice(32, 96),
    )
    yield "digits train", of_batches(batches)
    images = configs.load_images(config, "test")
    yield "digits view", of_batches(data.eval_batches(images, batch_size=100, rows=slice(50, 100)))
    for split in ("train", "test[10:-5]+train[:7%]", "train[90%:]", "all"):
        yield f"digits {split}", of_source(data.load_source("digits", split))


def folder(root):
    for split in ("train", "train[:50%]", "train[-3:]+test[1:]", "test"):
        yield f"folder {split}", of_source(data.load_source("folder", split, path=root))


def statistics(root):
    for size in SIZES:
        images = configs.load_images(a_config(root, image_size=size), "train")
        for mean, std, most in (("pixel", "channel", None), ("channel", "none", 5)):
            measured = data.measure_statistics(images, mean, std, most=most)
            yield f"statistics {size} {mean} {std} {most}", digest(measured.mean, measured.std)


def substitutes(root):
    """Two files are cut short; others take their place."""
    for name in ("cat/full.jpg", "dog/alpha.png"):
        file = root / "train" / name
        file.write_bytes(file.read_bytes()[:-100])
    config = a_config(root, image_size=15, augment="inception_crop")
    bad_records = data.BadRecords("train", 0.5)
    batches = data.train_batches(
        configs.load_images(config, "train", bad_records),
        configs.build_augmentation(config),
        batch_size=14,
        seed=3,
        start=0,
        stop=3,
        rows=slice(0, 14),
    )
    yield "substitutes", of_batches(batches)
    assert bad_records.failures == 6


def components(root):
    images = configs.load_images(a_config(root, image_size=48), "train")
    for color in ("pca", "pca_imagenet"):
        measured = data.measure_statistics(images, "none", "none", color=color)
        yield f"components {color}", measured.color.tolist()


@pytest.fixture
def root(tmp_path):
    return shutil.copytree(PINS / "images", tmp_path / "images")


@pytest.mark.parametrize("of", [indices_and_draws, digits])
def test_seeds_stand_for_the_same_examples_and_draws(of):
    found = dict(of())
    assert found == {name: PINNED[name] for name in found}


@pytest.mark.parametrize("of", [pixels, folder, statistics, substitutes])
def test_files_become_the_same_bytes(of, root):
    found = dict(of(root))
    assert found == {name: PINNED[name] for name in found}


def test_components_of_colour_stay(root):
    for name, found in components(root):
        np.testing.assert_allclose(found, PINNED[name], rtol=1e-6, atol=1e-6)


def test_numbers_of_streams_stay():
    known = {stream.name: stream.value for stream in data.Stream}
    pinned = {"ORDER": 0, "CROP": 1, "FLIP": 2, "BOX": 3, "COLOR": 4, "SUBSTITUTE": 5}
    assert known.items() >= pinned.items()
