import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import registered

from resnet_jax import InputError
from resnet_jax.data import load_images, load_source
from resnet_jax.evaluation import evaluate
from resnet_jax.training import train
from tests.data.pictures import encode, photo
from tests.data.sources.tfrecord_reference import turn_into_tfrecord, write_tfrecord
from tests.tiny import tiny_config

COUNTS = {"train": 20, "test": 7}


def example(number):
    return {"image": encode(photo(30, 40, seed=number), "JPEG"), "label": number % 3}


with registered.skip_registration():

    class TinyPhotos(tfds.core.GeneratorBasedBuilder):
        """Photos of three classes; a data set of one's own."""

        VERSION = tfds.core.Version("1.2.0")
        code_path = None  # or tfds looks for files beside a module of a package

        def _features(self) -> dict[str, tfds.features.FeatureConnector]:
            return {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
            }

        def _info(self):
            features = tfds.features.FeaturesDict(self._features())
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0), "test": self._generate_examples(100)}

        def _generate_examples(self, first):
            for number in range(first, first + COUNTS["test" if first else "train"]):
                yield number, example(number)

    class NamedPhotos(TinyPhotos):
        """The same, where examples have a name."""

        def _features(self) -> dict[str, tfds.features.FeatureConnector]:
            return {**super()._features(), "id": tfds.features.Text()}

        def _generate_examples(self, first):
            for number, values in super()._generate_examples(first):
                yield number, {**values, "id": f"photo {number}"}

    class Boxes(TinyPhotos):
        """Images without a label."""

        def _features(self) -> dict[str, tfds.features.FeatureConnector]:
            count = tfds.features.Scalar(np.int32)
            return {"image": tfds.features.Image(encoding_format="jpeg"), "count": count}

        def _generate_examples(self, first):
            for number, values in super()._generate_examples(first):
                yield number, {"image": values["image"], "count": number}


def prepare(builder, folder):
    """Prepares a data set with tfds itself, as `tfds build` does."""
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder(data_dir=folder, file_format="array_record").download_and_prepare(
        download_config=config
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (TinyPhotos, NamedPhotos, Boxes):
        prepare(builder, folder)
    return folder


def source(place, split="train", name="tiny_photos"):
    return load_source("tfds", split, name=name, path=place)


def test_examples_are_the_bytes_that_were_prepared(place):
    train = source(place)
    assert (len(train), train.class_names) == (20, ("a", "b", "c"))
    originals = {example(number)["image"]: number for number in range(20)}
    found = []
    for index in range(20):
        image, label, key = train[index]
        assert key == f"train:{index}"
        assert isinstance(image, bytes)
        assert label == originals[image] % 3
        found.append(originals[image])
    assert sorted(found) == list(range(20))
    assert train[-1] == train[19]
    with pytest.raises(IndexError):
        train[20]


def records(builder, split) -> list[dict[str, Any]]:
    """What tfds itself reads."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    return list(builder.as_data_source(split, decoders=decoders))


def test_splits_are_tfds_own(place):
    builder = tfds.builder_from_directory(place / "tiny_photos" / "1.2.0")
    for split in ["train[:30%]", "test[-3:]", "train[5:7]+test", "train[50%:]"]:
        ours = source(place, split)
        theirs = [record["image"] for record in records(builder, split)]
        assert [ours[i].image for i in range(len(ours))] == theirs


def test_examples_that_have_a_name_are_called_by_it(place):
    test = source(place, "test", "named_photos")
    assert {test[i].key for i in range(7)} == {f"photo {100 + i}" for i in range(7)}


@pytest.mark.parametrize(
    "name", ["tiny_photos", "tiny_photos:1.2.0", "tiny_photos:1.*.*", "TinyPhotos"]
)
def test_names_may_say_the_version(place, name):
    assert len(source(place, "test", name)) == 7


def test_images_are_decoded_and_kept(place):
    images = load_images("tfds", "test", 16, name="tiny_photos", path=place)
    assert images.image_shape == (16, 16, 3)
    assert images.read(np.arange(7))[1].tolist() == [
        source(place, "test")[i].label for i in range(7)
    ]


def test_tensorflow_is_never_imported(place):
    program = f"""
import sys
import numpy as np
from resnet_jax.data import load_images
assert "tensorflow_datasets" not in sys.modules, "it takes a second"
load_images("digits", "train", 8)
assert "tensorflow_datasets" not in sys.modules, "it takes a second"
for in_memory in (True, False):
    images = load_images(
        "tfds", "train[:5]", 16, name="tiny_photos", path={str(place)!r}, in_memory=in_memory
    )
    images.read(np.arange(5))
assert "tensorflow_datasets" in sys.modules
assert not any(name.split(".")[0] == "tensorflow" for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        (
            "cifar10",
            "train",
            "tfds has not prepared cifar10 in {place}; `tfds build cifar10 "
            "--file_format=array_record --data_dir={place}` does it",
        ),
        (
            "cifar11",
            "train",
            "there is no data set of tfds 'cifar11'; did you mean cifar10_1 or cifar10 or "
            "cifar100?",
        ),
        (
            "tiny_photos:2.0.0",
            "train",
            "tfds has not prepared tiny_photos:2.0.0 in {place}; what is there is "
            "tiny_photos:1.2.0",
        ),
        (
            "tiny photos",
            "train",
            "'tiny photos' is not a name of a data set of tfds; write it as 'name' or "
            "'name/config:1.0.0'",
        ),
        ("tiny_photos", "tset", "there is no split of tiny_photos 'tset'; did you mean test?"),
        ("boxes", "test", "the examples of boxes are not images with one label each"),
    ],
)
def test_refusals(place, name, split, message):
    with pytest.raises(InputError) as error:
        source(place, split, name)
    assert str(error.value) == message.format(place=place)


@pytest.fixture(scope="module")
def tfrecord_place(tmp_path_factory):
    """The same data sets, prepared as TFRecord."""
    folder = tmp_path_factory.mktemp("tfrecord")
    for builder in (TinyPhotos, NamedPhotos):
        prepare(builder, folder)
    for version in folder.glob("*/1.2.0"):
        turn_into_tfrecord(version)
    return folder


@pytest.mark.parametrize("name", ["tiny_photos", "named_photos"])
@pytest.mark.parametrize("split", ["train", "test[2:]+train[:30%]"])
def test_tfrecord_is_read_as_array_record_is(place, tfrecord_place, name, split):
    ours, other = source(tfrecord_place, split, name), source(place, split, name)
    assert len(ours) == len(other)
    assert [ours[i] for i in range(len(ours))] == [other[i] for i in range(len(other))]


def test_one_process_indexes_tfrecord_for_all(tfrecord_place):
    """The others look at none of its files."""
    values = []
    made = load_source(
        "tfds",
        "train",
        name="tiny_photos",
        path=tfrecord_place,
        once=lambda make: values.append(json.dumps(make())) or json.loads(values[0]),
    )
    received = load_source(
        "tfds",
        "train",
        name="tiny_photos",
        path=tfrecord_place,
        once=lambda make: json.loads(values[0]),
    )
    assert len(values) == 1
    assert [made[i] for i in range(20)] == [received[i] for i in range(20)]


def test_another_format_is_refused_with_what_converts_it(tmp_path):
    prepare(TinyPhotos, tmp_path)
    folder = tmp_path / "tiny_photos" / "1.2.0"
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "riegeli"}))
    with pytest.raises(InputError) as error:
        source(tmp_path)
    assert str(error.value) == (
        f"{folder} is prepared as riegeli, and array_record and tfrecord are read; `tfds "
        f"convert_format --dataset_version_dir={folder} --out_file_format=array_record` makes it so"
    )
    # What the conversion leaves behind.
    info["alternativeFileFormats"] = ["array_record"]
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "riegeli"}))
    assert len(source(tmp_path)) == 20


def test_the_format_that_is_there_is_read(tmp_path, place):
    prepare(TinyPhotos, tmp_path)
    folder = tmp_path / "tiny_photos" / "1.2.0"
    turn_into_tfrecord(folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["alternativeFileFormats"] = ["array_record"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert source(tmp_path)[3] == source(place)[3]


def test_an_object_store(tfrecord_place, object_store, place):
    for path in (tfrecord_place / "tiny_photos" / "1.2.0").iterdir():
        (object_store / "tiny_photos" / "1.2.0" / path.name).write_bytes(path.read_bytes())
    remote, local = source(object_store), source(place)
    assert [remote[i] for i in range(20)] == [local[i] for i in range(20)]


def test_what_is_no_example_is_refused(tmp_path):
    prepare(TinyPhotos, tmp_path)
    folder = tmp_path / "tiny_photos" / "1.2.0"
    turn_into_tfrecord(folder)
    write_tfrecord(folder / "tiny_photos-test.tfrecord-00000-of-00001", [b"nonsense"] * 7)
    with pytest.raises(InputError) as error:
        source(tmp_path, "test")[2]
    assert str(error.value).startswith("example test:2 is not what dataset_info.json says: ")


def test_a_missing_file_is_refused(tmp_path):
    prepare(TinyPhotos, tmp_path)
    file = tmp_path / "tiny_photos" / "1.2.0" / "tiny_photos-train.array_record-00000-of-00001"
    file.unlink()
    assert len(source(tmp_path, "test")) == 7
    with pytest.raises(InputError) as error:
        source(tmp_path)
    assert str(error.value) == f"tiny_photos is not complete: {file} is missing"


def test_files_with_another_number_of_examples_are_refused(tmp_path):
    prepare(TinyPhotos, tmp_path)
    folder = tmp_path / "tiny_photos" / "1.2.0"
    info = json.loads((folder / "dataset_info.json").read_text())
    for split in info["splits"]:
        split["shardLengths"] = ["9"]
    for file_format in ("array_record", "tfrecord"):
        info["fileFormat"] = file_format
        (folder / "dataset_info.json").write_text(json.dumps(info))
        with pytest.raises(InputError) as error:
            source(tmp_path)[0]
        file = folder / f"tiny_photos-train.{file_format}-00000-of-00001"
        assert str(error.value) == (
            f"{file} has 20 records and dataset_info.json says 9; copy or prepare it again"
        )
        if file_format == "array_record":
            turn_into_tfrecord(folder)


def write_imagenet(folder, counts):
    """Writes a tiny preparation of ImageNet with its own builder's features, and opens it."""
    builder = tfds.builder("imagenet2012", data_dir=folder, file_format="array_record")
    epath.Path(builder.data_dir).mkdir(parents=True)
    writer = tfds.core.SequentialWriter(
        builder.info, max_examples_per_shard=8, file_format="array_record"
    )
    writer.initialize_splits(list(counts))
    for split, count in counts.items():
        examples = [
            {
                "image": encode(photo(60, 50, seed=number), "JPEG"),
                "label": -1 if split == "test" else 7 * number,
                "file_name": f"{split}_{number}.JPEG",
            }
            for number in range(count)
        ]
        writer.add_examples({split: examples})
    writer.close_all()
    return tfds.builder("imagenet2012", data_dir=folder)


def test_imagenets_own_builder(tmp_path):
    builder = write_imagenet(tmp_path, {"train": 20, "validation": 9, "test": 2})
    assert type(builder).__module__.endswith("imagenet2012_dataset_builder")
    assert builder.is_prepared()

    train = source(tmp_path, "train", "imagenet2012")
    assert len(train.class_names) == 1000
    assert train.class_names[:2] == ("n01440764", "n01443537")
    theirs = records(builder, "train")
    assert len(theirs) == len(train) == 20
    for index, values in enumerate(theirs):
        assert train[index] == (values["image"], values["label"], values["file_name"].decode())
    assert len(source(tmp_path, "train[:50%]+validation", "imagenet2012")) == 19
    with pytest.raises(InputError) as error:
        source(tmp_path, "test", "imagenet2012")[0]
    assert str(error.value) == "image test_0.JPEG has no label; take another split than test"


@pytest.mark.slow
def test_a_run_on_imagenet_as_its_builder_prepares_it(tmp_path):
    write_imagenet(tmp_path / "data", {"train": 20, "validation": 9})
    config = tiny_config(
        **{
            "data.source": "tfds",
            "data.name": "imagenet2012",
            "data.path": str(tmp_path / "data"),
            "data.eval_split": "validation",
            "data.eval_resize": 9,
            "data.in_memory": False,
            "data.augment": "scale_jitter",
            "data.statistics_examples": 10,
            "total_steps": 1,
        }
    )
    state = train(config, tmp_path / "workdir")
    assert state.params["head"]["kernel"].shape[-1] == 1000
    assert evaluate(tmp_path / "workdir", split="train[:30%]+validation").examples == 15
