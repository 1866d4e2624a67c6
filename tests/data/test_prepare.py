import json
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from resnet_jax import InputError
from resnet_jax.data import folder_splits, load_source
from resnet_jax.data.prepare import Settings, prepare, verify
from resnet_jax.data.prepare import plan as plan_module
from resnet_jax.data.prepare import run as run_module
from resnet_jax.data.source import Example
from tests.data.pictures import encode, photo, write_folder

CLASSES = {"ant": 7, "Bee": 5, "cat": 3}
SETTINGS = Settings(examples_per_shard=4)


class Pictures:
    """A source in memory."""

    class_names = ("a", "b")

    def __init__(self, count=10, bad=(), seed=0, size=24):
        self._images = [encode(photo(size, 20, seed=seed + n), "JPEG") for n in range(count)]
        for index in bad:
            self._images[index] = self._images[index][:-200]

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index, /):
        return Example(self._images[index], index % 2, f"picture {index}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("source") / "root"
    write_folder(root, {"train": CLASSES, "val": dict.fromkeys(CLASSES, 2)})
    return root


def opened(root):
    return {split: open_split() for split, open_split in folder_splits(root).items()}


def contents(place):
    """The bytes of every file of a data set, but for what is remembered of reading it."""
    files = (path for path in pathlib.Path(place).rglob("*") if path.is_file())
    return {p.name: p.read_bytes() for p in files if not p.name.startswith(".index")}


@pytest.mark.parametrize("format_name", ["array_record", "tfrecord"])
def test_every_example_is_there_once_and_in_order(folder, tmp_path, format_name):
    sources = opened(folder)
    settings = Settings(format=format_name, examples_per_shard=4)
    place = prepare(sources, tmp_path / "out", "photos", settings=settings)
    assert place == tmp_path / "out" / "photos" / "1.0.0"
    for split, source in sources.items():
        prepared = load_source("tfds", split, name="photos", path=tmp_path / "out")
        assert prepared.class_names == source.class_names
        assert [prepared[i] for i in range(len(prepared))] == [
            source[i] for i in range(len(source))
        ]
    assert len(list(place.glob(f"photos-train.{format_name}-*-of-00004"))) == 4
    assert len(list(place.glob(f"photos-val.{format_name}-*-of-00002"))) == 2
    assert verify(tmp_path / "out", "photos") == {"train": 15, "val": 6}


def test_tfds_itself_reads_it(folder, tmp_path):
    sources = opened(folder)
    place = prepare(sources, tmp_path, "photos", settings=SETTINGS)
    builder = tfds.builder_from_directory(place)
    assert builder.info.supervised_keys == ("image", "label")
    assert builder.info.features["label"].names == ["Bee", "ant", "cat"]
    assert builder.info.splits["train"].num_examples == 15
    theirs = tfds.data_source("photos", split="train", data_dir=tmp_path)
    for index, values in enumerate(theirs):
        example = sources["train"][index]
        assert values["file_name"].decode() == example.key
        assert values["label"] == example.label
        assert values["image"].shape == (40, 30, 3)
    assert index == 14


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_the_bytes_do_not_depend_on_the_number_of_workers(folder, tmp_path, workers):
    settings = Settings(shorter_side=16, examples_per_shard=4)
    for name, number in [("one", None), ("other", workers)]:
        prepare(opened(folder), tmp_path / name, "photos", settings=settings, workers=number)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_images_are_shrunk(folder, tmp_path):
    prepare(opened(folder), tmp_path, "photos", settings=Settings(shorter_side=16))
    images = tfds.data_source("photos", split="train", data_dir=tmp_path)
    assert {values["image"].shape for values in images} == {(21, 16, 3)}


def test_pixels_are_kept_as_they_are(tmp_path):
    digits = load_source("digits", "test")
    prepare({"test": digits}, tmp_path, "digits")
    images = tfds.data_source("digits", split="test", data_dir=tmp_path)
    assert len(images) == len(digits)
    for index in range(0, len(digits), 50):
        pixels = digits[index].image
        np.testing.assert_array_equal(images[index]["image"], np.broadcast_to(pixels, (8, 8, 3)))


def test_a_prepared_data_set_is_a_source_too(folder, tmp_path):
    prepare(opened(folder), tmp_path, "photos", settings=SETTINGS)
    source = load_source("tfds", "train", name="photos", path=tmp_path)
    prepare({"train": source}, tmp_path, "again")
    again = load_source("tfds", "train", name="again", path=tmp_path)
    assert [again[i] for i in range(15)] == [source[i] for i in range(15)]


def test_a_second_time_nothing_is_done(folder, tmp_path, monkeypatch):
    place = prepare(opened(folder), tmp_path, "photos", settings=SETTINGS)
    before = {path: path.stat().st_mtime_ns for path in pathlib.Path(place).iterdir()}
    monkeypatch.setattr(run_module, "_write_shards", None)
    assert prepare(opened(folder), tmp_path, "photos", settings=SETTINGS) == place
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(place).iterdir()} == before


def interrupted(sources, out, after, **options):
    """Prepares until some examples have been asked for, and is interrupted."""

    class Stop(KeyboardInterrupt):
        pass

    class Interrupting:
        def __init__(self, source):
            self._source = source
            self.class_names = source.class_names

        def __len__(self):
            return len(self._source)

        def __getitem__(self, index, /):
            if index >= after:
                raise Stop
            return self._source[index]

    with pytest.raises(Stop):
        prepare({n: Interrupting(s) for n, s in sources.items()}, out, "photos", **options)


def test_what_was_interrupted_goes_on(tmp_path, monkeypatch):
    sources = {"train": Pictures(18), "test": Pictures(5, seed=100)}
    prepare(sources, tmp_path / "one", "photos", settings=SETTINGS)
    interrupted(sources, tmp_path / "other", 13, settings=SETTINGS, workers=1)
    place = tmp_path / "other" / "photos" / "1.0.0"
    finished = {path: path.stat().st_mtime_ns for path in place.glob("*record-*")}
    assert len(finished) == 3
    assert not list(place.glob("*.partial"))

    with pytest.raises(InputError) as error:
        load_source("tfds", "train", name="photos", path=tmp_path / "other")
    assert str(error.value) == f"{place} is not finished; the command that began it goes on"
    with pytest.raises(tfds.core.DatasetNotFoundError):
        tfds.data_source("photos", split="train", data_dir=tmp_path / "other")
    with pytest.raises(InputError) as error:
        verify(tmp_path / "other", "photos")
    assert str(error.value) == f"{place} is not finished; the command that began it goes on"

    prepare(sources, tmp_path / "other", "photos", settings=SETTINGS)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())


@pytest.mark.parametrize("damage", ["changed", "shortened", "removed", "note"])
def test_what_was_finished_and_is_damaged_is_made_again(tmp_path, damage):
    sources = {"train": Pictures(18)}
    prepare(sources, tmp_path / "one", "photos", settings=SETTINGS)
    interrupted(sources, tmp_path / "other", 13, settings=SETTINGS, workers=1)
    place = tmp_path / "other" / "photos" / "1.0.0"
    file = min(place.glob("*record-*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    if damage == "changed":
        file.write_bytes(content)
    elif damage == "shortened":
        file.write_bytes(content[:-1])
    elif damage == "removed":
        file.unlink()
    else:
        note = place / ".progress" / f"{file.name}.json"
        note.write_text(note.read_text()[:20])
    prepare(sources, tmp_path / "other", "photos", settings=SETTINGS)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_a_source_that_has_changed_since_is_refused(tmp_path):
    interrupted({"train": Pictures(18)}, tmp_path, 13, settings=SETTINGS, workers=1)
    place = tmp_path / "photos" / "1.0.0"

    class Renamed(Pictures):
        def __getitem__(self, index, /):
            return super().__getitem__(index)._replace(key=f"photo {index}")

    for source, message in [
        (
            Pictures(17),
            f"{place} was begun with counts.train 18 and not 17; take another place or version, "
            "or delete it",
        ),
        (
            Renamed(18),
            f"the examples of train are others than when {place} was begun; delete that folder to "
            "begin anew",
        ),
    ]:
        with pytest.raises(InputError) as error:
            prepare({"train": source}, tmp_path, "photos", settings=SETTINGS)
        assert str(error.value) == message


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused(tmp_path, finished):
    sources = {"train": Pictures(18)}
    if finished:
        prepare(sources, tmp_path, "photos", settings=SETTINGS)
    else:
        interrupted(sources, tmp_path, 13, settings=SETTINGS, workers=1)
    with pytest.raises(InputError) as error:
        prepare(sources, tmp_path, "photos", settings=Settings(quality=80, examples_per_shard=4))
    assert str(error.value) == (
        f"{tmp_path}/photos/1.0.0 was {'prepared' if finished else 'begun'} with settings.quality "
        "90 and not 80; take another place or version, or delete it"
    )


def test_other_classes_are_refused_in_one_line(tmp_path):
    class Many(Pictures):
        class_names = tuple(f"class {number}" for number in range(1000))

    prepare({"train": Pictures(3)}, tmp_path, "photos")
    with pytest.raises(InputError) as error:
        prepare({"train": Many(3)}, tmp_path, "photos")
    assert "was prepared with class_names ['a', 'b'] and not ['class 0'," in str(error.value)
    assert len(str(error.value)) < len(str(tmp_path)) + 250


def test_another_encoder_matters_only_to_what_is_not_finished(tmp_path, monkeypatch):
    sources = {"train": Pictures(18)}
    place = prepare(sources, tmp_path / "one", "photos", settings=SETTINGS)
    interrupted(sources, tmp_path / "other", 13, settings=SETTINGS, workers=1)
    monkeypatch.setattr(plan_module.Image, "__version__", "99.0")
    assert prepare(sources, tmp_path / "one", "photos", settings=SETTINGS) == place
    with pytest.raises(InputError, match=r"was begun with encoder 'Pillow .* and not 'Pillow 99"):
        prepare(sources, tmp_path / "other", "photos", settings=SETTINGS)


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


def test_every_changed_file_is_found(folder, tmp_path):
    place = pathlib.Path(prepare(opened(folder), tmp_path, "photos", settings=SETTINGS))
    files = sorted(path for path in place.iterdir() if path.name != "manifest.json")
    assert len(files) == 9
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(InputError) as error:
            verify(tmp_path, "photos")
        assert str(error.value) == (
            f"{path} is not what was written; delete the folder and prepare it again"
        )
        path.write_bytes(content[:-1])
        with pytest.raises(InputError) as error:
            verify(tmp_path, "photos")
        assert str(error.value) == (
            f"{path} has {len(content) - 1} bytes, {len(content)} were written; delete the folder "
            "and prepare it again"
        )
        path.unlink()
        with pytest.raises(InputError):
            verify(tmp_path, "photos")
        path.write_bytes(content)
    verify(tmp_path, "photos")


def test_what_cannot_be_verified_is_said(folder, tmp_path):
    with pytest.raises(InputError) as error:
        verify(tmp_path, "photos")
    assert str(error.value) == f"there is no prepared data set {tmp_path}/photos/1.0.0"
    place = prepare(opened(folder), tmp_path, "photos", settings=SETTINGS)
    (place / "manifest.json").write_text('{"format": 9}')
    with pytest.raises(InputError) as error:
        verify(tmp_path, "photos")
    assert str(error.value) == f"another version of resnet_jax prepared {place}"
    (place / "manifest.json").write_text("{")
    with pytest.raises(InputError) as error:
        verify(tmp_path, "photos")
    assert str(error.value) == (
        f"{place} has no manifest.json that can be read, so that there is nothing to compare it "
        "with"
    )


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    place = tmp_path / "photos" / "1.0.0"
    place.mkdir(parents=True)
    (place / "thesis.tex").write_text("")
    with pytest.raises(InputError) as error:
        prepare({"train": Pictures(3)}, tmp_path, "photos")
    assert str(error.value) == (
        f"{place} has something else in it (thesis.tex); take another place or version"
    )
    assert [path.name for path in place.iterdir()] == ["thesis.tex"]


def test_a_place_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as error:
        prepare({"train": Pictures(3)}, tmp_path / "file", "photos")
    assert str(error.value).startswith(f"{tmp_path}/file/photos/1.0.0 cannot be made: ")


def test_two_processes_do_not_prepare_the_same(tmp_path):
    class Nested(Pictures):
        def __getitem__(self, index, /):
            with pytest.raises(InputError) as error:
                prepare({"train": Pictures(3)}, tmp_path, "photos")
            messages.append(str(error.value))
            return super().__getitem__(index)

    messages = []
    prepare({"train": Nested(3)}, tmp_path, "photos")
    assert set(messages) == {f"another process is preparing {tmp_path}/photos/1.0.0"}


class Other(Pictures):
    class_names = ("a", "c")


class Strange(Pictures):
    class_names = ("a", "b\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "My photos"}, "'My photos' cannot name a data set of tfds; it is as my_photos_2"),
        ({"version": "1"}, "'1' is no version of a data set; it is as 1.0.0"),
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
        ({"format": "tfrecords"}, "there is no format 'tfrecords'; did you mean tfrecord?"),
        ({"examples_per_shard": 0}, "a file has at least 1 example, not 0"),
    ],
)
def test_settings_out_of_range(values, message):
    with pytest.raises(InputError) as error:
        Settings(**values)
    assert str(error.value) == message


def test_an_object_store(folder, object_store, tmp_path):
    settings = Settings(format="tfrecord", shorter_side=16, examples_per_shard=4)
    sources = opened(folder)
    interrupted(sources, object_store, 9, settings=settings, workers=1)
    prepare(sources, object_store, "photos", settings=settings)
    assert verify(object_store, "photos") == {"train": 15, "val": 6}
    remote = load_source("tfds", "train", name="photos", path=object_store)
    prepare(sources, tmp_path, "photos", settings=settings)
    local = load_source("tfds", "train", name="photos", path=tmp_path)
    assert [remote[i] for i in range(15)] == [local[i] for i in range(15)]
    place = object_store / "photos" / "1.0.0"
    assert sorted(path.name for path in place.iterdir() if ".index" not in path.name) == sorted(
        contents(tmp_path)
    )
