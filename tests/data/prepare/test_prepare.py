import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from resnet_jax import InputError
from resnet_jax.data import load_source
from resnet_jax.data.manifest import Settings, verify
from resnet_jax.data.prepare import prepare
from tests.data.prepare.preparing import (
    SETTINGS,
    Pictures,
    contents,
    folder,  # noqa: F401
    interrupted,
    opened,
)


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    """The folder that holds a prepared data set, not to be changed."""
    out = tmp_path_factory.mktemp("out")
    place = prepare(opened(folder), out, "photos", settings=SETTINGS)
    assert place == out / "photos" / "1.0.0"
    return out


def test_every_example_is_there_once_and_in_order(folder, prepared):
    for split, source in opened(folder).items():
        found = load_source("tfds", split, name="photos", path=prepared)
        assert found.class_names == source.class_names
        assert [found[i] for i in range(len(found))] == [source[i] for i in range(len(source))]
    place = prepared / "photos" / "1.0.0"
    assert len(list(place.glob("photos-train.array_record-*-of-00004"))) == 4
    assert len(list(place.glob("photos-val.array_record-*-of-00002"))) == 2
    assert verify(prepared, "photos") == {"train": 15, "val": 6}


def test_tfds_itself_reads_it(folder, prepared):
    source = opened(folder)["train"]
    builder = tfds.builder_from_directory(prepared / "photos" / "1.0.0")
    assert builder.info.supervised_keys == ("image", "label")
    assert builder.info.features["label"].names == ["Bee", "ant", "cat"]
    assert builder.info.splits["train"].num_examples == 15
    theirs = tfds.data_source("photos", split="train", data_dir=prepared)
    for index, values in enumerate(theirs):
        example = source[index]
        assert values["file_name"].decode() == example.key
        assert values["label"] == example.label
        assert values["image"].shape == (40, 30, 3)
    assert index == 14


def test_the_bytes_do_not_depend_on_the_number_of_workers(folder, tmp_path):
    settings = Settings(shorter_side=16, examples_per_shard=4)
    for workers in (1, 3, 16):
        prepare(
            opened(folder), tmp_path / str(workers), "photos", settings=settings, workers=workers
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "3") == contents(tmp_path / "16")


def test_pixels_are_kept_as_they_are(tmp_path):
    digits = load_source("digits", "test")
    prepare({"test": digits}, tmp_path, "digits")
    images = tfds.data_source("digits", split="test", data_dir=tmp_path)
    assert len(images) == len(digits)
    for index in range(0, len(digits), 50):
        pixels = digits[index].image
        np.testing.assert_array_equal(images[index]["image"], np.broadcast_to(pixels, (8, 8, 3)))


def test_a_bad_image_is_refused(tmp_path):
    with pytest.raises(InputError) as error:
        prepare({"train": Pictures(10, bad=[3, 5])}, tmp_path, "photos")
    message = str(error.value)
    assert message.startswith("image picture 3 of train cannot be prepared: it cannot be decoded: ")
    assert message.endswith("; --skip_bad=0.001 leaves out up to one in a thousand, and lists them")


@pytest.mark.parametrize("interrupt", [False, True])
def test_bad_images_are_left_out_and_listed(tmp_path, interrupt):
    sources = {"train": Pictures(18, bad=[0, 13, 5]), "test": Pictures(4, bad=[1], seed=100)}
    if interrupt:
        interrupted(sources, tmp_path, 14, settings=SETTINGS, workers=1, skip_bad=0.2)
        file = tmp_path / "photos" / "1.0.0" / "photos-train.array_record-00000-of-00005"
        file.unlink()  # so that the list is not in the order in which files are made
    place = prepare(sources, tmp_path, "photos", settings=SETTINGS, skip_bad=0.2)
    listed = [json.loads(line) for line in (place / "bad.jsonl").read_text().splitlines()]
    assert [(bad["split"], bad["key"]) for bad in listed] == [
        ("train", "picture 0"),
        ("train", "picture 5"),
        ("train", "picture 13"),
        ("test", "picture 1"),
    ]
    assert verify(tmp_path, "photos") == {"train": 15, "test": 3}
    train = load_source("tfds", "train", name="photos", path=tmp_path)
    expected = [f"picture {index}" for index in range(18) if index not in (0, 5, 13)]
    assert [train[index].key for index in range(15)] == expected


def test_a_file_of_bad_images_alone(tmp_path):
    prepare(
        {"train": Pictures(8, bad=[0, 1, 2, 3])},
        tmp_path,
        "photos",
        settings=SETTINGS,
        skip_bad=0.5,
    )
    assert verify(tmp_path, "photos") == {"train": 4}
    train = load_source("tfds", "train", name="photos", path=tmp_path)
    assert [train[index].key for index in range(4)] == [f"picture {n}" for n in range(4, 8)]
    assert len(tfds.data_source("photos", split="train", data_dir=tmp_path)) == 4


def test_too_many_bad_images_are_refused_with_the_list(tmp_path):
    sources = {"train": Pictures(20, bad=[2, 4, 6])}
    with pytest.raises(InputError) as error:
        prepare(sources, tmp_path, "photos", skip_bad=0.1, workers=1)
    path = tmp_path / "photos" / "1.0.0" / "bad.jsonl"
    assert str(error.value) == (
        "3 of 20 images cannot be prepared, which is more than the share of 0.1 that may be left "
        f"out; {path} lists them"
    )
    assert len(path.read_text().splitlines()) == 3
    prepare(sources, tmp_path, "photos", skip_bad=0.15)
    assert verify(tmp_path, "photos") == {"train": 17}


def test_a_place_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as error:
        prepare({"train": Pictures(3)}, tmp_path / "file", "photos")
    assert str(error.value).startswith(f"{tmp_path}/file/photos/1.0.0 cannot be made: ")


class Other(Pictures):
    class_names = ("a", "c")


class Strange(Pictures):
    class_names = ("a", "b\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "My photos"},
            "'My photos' cannot name a data set of tfds; write it as my_photos_2",
        ),
        ({"version": "1"}, "'1' is not a version of a data set; write it as 1.0.0"),
        ({"sources": {}}, "there is no split to prepare"),
        ({"sources": {"train": Pictures(0)}}, "split train has no examples"),
        (
            {"sources": {"my train": Pictures(1)}},
            "'my train' cannot name a split of tfds, which has letters, digits, _",
        ),
        (
            {"sources": {"train": Pictures(1), "test": Other(1)}},
            "splits with different classes cannot be one data set",
        ),
        (
            {"sources": {"train": Strange(1)}},
            "'b\\n' cannot name a class of a data set of tfds",
        ),
        ({"skip_bad": 1.0}, "the share that may be left out is from 0 to below 1, not 1.0"),
        ({"workers": 0}, "there is at least 1 worker, and 0 were asked for"),
    ],
)
def test_refusals(tmp_path, arguments, message):
    arguments = {"sources": {"train": Pictures(1)}, "name": "photos", **arguments}
    with pytest.raises(InputError) as error:
        prepare(arguments.pop("sources"), tmp_path, **arguments)
    assert str(error.value) == message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shorter_side": 0}, "the shorter side has at least 1 pixel, not 0"),
        ({"quality": 101}, "the quality of a JPEG is 1 to 100, not 101"),
        ({"examples_per_shard": 0}, "a file has at least 1 example, not 0"),
    ],
)
def test_settings_out_of_range(values, message):
    with pytest.raises(InputError) as error:
        Settings(**values)
    assert str(error.value) == message


def test_an_object_store_is_refused(object_store):
    with pytest.raises(InputError) as error:
        prepare({"train": Pictures(1)}, object_store, "photos")
    assert str(error.value) == (
        f"{object_store}/photos/1.0.0 is in an object store, and ArrayRecord files are written to "
        "disks only; give a local folder"
    )
