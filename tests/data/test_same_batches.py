"""The same images from a folder, from ArrayRecord and from TFRecord."""

import numpy as np
import pytest

from resnet_jax.data import augmentation, load_images, load_source, train_batches
from resnet_jax.data.manifest import Settings
from resnet_jax.data.prepare import prepare
from tests.data.pictures import write_folder
from tests.data.sources.tfrecord_reference import turn_into_tfrecord

CLASSES = ("ant", "bee", "cat")
SOURCES = ("folder", "array_record", "tfrecord")
STEPS = 20


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """For each source the part of a config that says where it is."""
    folder = tmp_path_factory.mktemp("data")
    counts = {"train": dict.fromkeys(CLASSES, 14), "val": dict.fromkeys(CLASSES, 3)}
    write_folder(folder / "root", counts)
    places = {"folder": {"source": "folder", "name": None, "path": str(folder / "root")}}
    splits = {split: load_source("folder", split, path=folder / "root") for split in counts}
    for format_name in ("array_record", "tfrecord"):
        settings = Settings(examples_per_shard=10)
        prepared = prepare(splits, folder / format_name, "photos", settings=settings)
        if format_name == "tfrecord":
            turn_into_tfrecord(prepared)
        places[format_name] = {
            "source": "tfds",
            "name": "photos",
            "path": str(folder / format_name),
        }
    return places


def batches(place):
    where = {"name": place["name"], "path": place["path"]}
    images = load_images(place["source"], "train", 16, in_memory=False, workers=2, **where)
    return train_batches(
        images,
        augmentation("scale_jitter", image_size=16),
        batch_size=16,
        seed=3,
        start=0,
        stop=STEPS,
        rows=slice(None),
    )


def test_batches_are_equal(places):
    for batch, *others in zip(*(batches(places[source]) for source in SOURCES), strict=True):
        for other in others:
            assert batch.keys() == other.keys()
            for name in batch:
                np.testing.assert_array_equal(batch[name], other[name])
