import pathlib

import pytest
import tensorflow_datasets as tfds

from resnet_jax import InputError
from resnet_jax.data import load_source
from resnet_jax.data import prepare as prepare_module
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


def test_a_second_time_nothing_is_done(folder, tmp_path, monkeypatch):
    place = prepare(opened(folder), tmp_path, "photos", settings=SETTINGS)
    before = {path: path.stat().st_mtime_ns for path in pathlib.Path(place).iterdir()}
    monkeypatch.setattr(prepare_module, "_write_shards", None)
    assert prepare(opened(folder), tmp_path, "photos", settings=SETTINGS) == place
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(place).iterdir()} == before


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
    assert str(error.value) == (
        f"tfds has not prepared photos in {tmp_path}/other; what is there is not finished, and the "
        "command that began it goes on"
    )
    with pytest.raises(tfds.core.DatasetNotFoundError):
        tfds.data_source("photos", split="train", data_dir=tmp_path / "other")
    with pytest.raises(InputError) as error:
        verify(tmp_path / "other", "photos")
    assert str(error.value) == (
        f"{place} has no manifest.json of a finished data set; prepare it, or delete the folder "
        "and prepare it again"
    )

    prepare(sources, tmp_path / "other", "photos", settings=SETTINGS)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())


@pytest.mark.parametrize("damage", ["shortened", "removed"])
def test_a_file_that_is_not_whole_is_made_again(tmp_path, damage):
    sources = {"train": Pictures(18)}
    prepare(sources, tmp_path / "one", "photos", settings=SETTINGS)
    interrupted(sources, tmp_path / "other", 13, settings=SETTINGS, workers=1)
    place = tmp_path / "other" / "photos" / "1.0.0"
    file = min(place.glob("*record-*"))
    if damage == "shortened":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    prepare(sources, tmp_path / "other", "photos", settings=SETTINGS)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_a_source_that_has_changed_since_is_refused(tmp_path):
    interrupted({"train": Pictures(18)}, tmp_path, 13, settings=SETTINGS, workers=1)
    with pytest.raises(InputError) as error:
        prepare({"train": Pictures(17)}, tmp_path, "photos", settings=SETTINGS)
    assert str(error.value) == (
        f"{tmp_path}/photos/1.0.0 was begun with counts.train 18 and not 17; take another place or "
        "version, or delete it"
    )


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
    monkeypatch.setattr(prepare_module.Image, "__version__", "99.0")
    assert prepare(sources, tmp_path / "one", "photos", settings=SETTINGS) == place
    with pytest.raises(InputError, match=r"was begun with encoder 'Pillow .* and not 'Pillow 99"):
        prepare(sources, tmp_path / "other", "photos", settings=SETTINGS)


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
