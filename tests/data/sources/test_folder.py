import os
import threading

import numpy as np
import pytest

from resnet_jax import InputError
from resnet_jax.data import folder_splits, load_images, load_source
from resnet_jax.data.sources import storage
from tests.data.pictures import encode, photo, settle, write_folder

CLASSES = {"apple": 6, "Banana": 5, "cherry pie": 4}
SPLITS = {"train": CLASSES, "val": dict.fromkeys(CLASSES, 2)}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_folder(tmp_path / "root", SPLITS)
    settle(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def listed(monkeypatch):
    """The class folders that are listed."""
    folders = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: folders.append(str(path)) or listdir(path))
    return folders


def source(root, split="train"):
    return load_source("folder", split, path=root)


def keys(source):
    return [source[i].key for i in range(len(source))]


def test_examples_are_the_files(root):
    train = source(root)
    assert train.class_names == ("Banana", "apple", "cherry pie")
    files = {str(p.relative_to(root)): p for p in root.glob("train/*/*")}
    assert sorted(keys(train)) == sorted(files)
    for index in range(len(train)):
        image, label, key = train[index]
        assert image == files[key].read_bytes()
        assert key.split("/")[1] == train.class_names[label]
    assert train[-1] == train[len(train) - 1]
    with pytest.raises(IndexError):
        train[15]


def test_other_files_are_no_images(root):
    before = keys(source(root))
    (root / "train" / "apple" / "notes.txt").write_text("")
    (root / "train" / "apple" / "._0001.jpg").write_text("")
    (root / "train" / "README.md").write_text("")
    (root / ".git" / "x").mkdir(parents=True)
    (root / "train" / "apple" / "new.JPeG").write_bytes(encode(photo(9, 9), "JPEG"))
    assert set(keys(source(root))) - set(before) == {"train/apple/new.JPeG"}
    assert set(folder_splits(root)) == {"train", "val"}


def test_the_order_is_the_same_wherever_the_folder_is(root, tmp_path):
    other = tmp_path / "elsewhere"
    for path in sorted(root.glob("*/*/*"), reverse=True):
        copy = other / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert keys(source(other)) == keys(source(root))


def test_slices_are_fair_samples(tmp_path):
    for name in "abcd":
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(500):
            (tmp_path / "train" / name / f"{number}.png").touch()
    part = load_source("folder", "train[:400]", path=tmp_path)
    counts = np.bincount(["abcd".index(key.split("/")[1]) for key in keys(part)])
    # Without replacement, 100 of each class are expected with a deviation of 8.
    assert np.abs(counts - 100).max() < 35
    rest = load_source("folder", "train[400:]", path=tmp_path)
    assert len(set(keys(part)) | set(keys(rest))) == 2000


def test_a_list_is_made_once(root, listed):
    first = keys(source(root))
    assert len(listed) == 3
    assert (root / ".listing-train.json").exists()
    del listed[:]
    assert keys(source(root)) == first
    assert listed == []


@pytest.mark.parametrize("change", ["add", "remove", "rename", "class"])
def test_a_list_is_made_anew_after_a_change(root, change):
    before = set(keys(source(root)))
    some = root / "train" / "apple"
    one = min(some.iterdir())
    if change == "add":
        (some / "new.png").write_bytes(one.read_bytes())
    elif change == "remove":
        one.unlink()
    elif change == "rename":
        one.rename(some / "renamed.jpg")
    else:
        for split in ("train", "val"):
            (root / split / "date").mkdir()
            (root / split / "date" / "1.png").write_bytes(one.read_bytes())
    after = source(root)
    assert set(keys(after)) != before
    assert set(keys(after)) == {str(p.relative_to(root)) for p in root.glob("train/*/*")}
    settle(root)
    assert keys(source(root)) == keys(source(root)) == keys(after)


def test_what_has_just_changed_is_not_remembered(root):
    (root / "train" / "apple" / "new.png").write_bytes(encode(photo(9, 9)))
    source(root)
    assert not (root / ".listing-train.json").exists()


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_torn_list_is_not_trusted(root, listed, kept):
    first = keys(source(root))
    path = root / ".listing-train.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    del listed[:]
    assert keys(source(root)) == first
    assert len(listed) == 3
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", ["[]", "{}", '{"version": 0}', "1"])
def test_another_list_is_not_trusted(root, content):
    first = keys(source(root))
    (root / ".listing-train.json").write_text(content)
    assert keys(source(root)) == first


def test_a_list_that_cannot_be_beside_the_folder_is_in_the_users_cache(
    root, tmp_path, monkeypatch, listed
):
    write = storage.write_atomically

    def read_only(path, content):
        if path.is_relative_to(root):
            raise PermissionError(path)
        write(path, content)

    monkeypatch.setattr(storage, "write_atomically", read_only)
    first = keys(source(root))
    assert not (root / ".listing-train.json").exists()
    assert len(list((tmp_path / "cache" / "resnet_jax" / "kept").iterdir())) == 1
    del listed[:]
    assert keys(source(root)) == first
    assert listed == []

    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    assert keys(source(root)) == first, "a list that is kept nowhere is only slower"


def test_processes_that_start_together_agree(root):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(keys(source(root)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("without", [False, True])
def test_an_object_store_is_read_too(root, object_store, monkeypatch, without):
    if without:  # as where TensorFlow alone has access to it
        monkeypatch.setattr(storage, "url_to_fs", no_store)
    for path in root.glob("*/*/*"):
        if path.is_file():
            copy = object_store / str(path.relative_to(root))
            copy.write_bytes(path.read_bytes())
    remote, local = source(object_store), source(root)
    assert keys(remote) == keys(local)
    assert remote[3] == local[3]


def no_store(_):
    raise ImportError


def test_names_that_are_no_unicode(root):
    name = os.fsdecode(b"caf\xe9.png")
    (root / "train" / "apple" / name).write_bytes(encode(photo(9, 9)))
    settle(root)
    for _ in range(2):
        train = source(root)
        assert f"train/apple/{name}" in keys(train)


def test_images_from_a_folder(root):
    images = load_images("folder", "val", 8, path=root)
    assert images.image_shape == (8, 8, 3)
    assert len(images) == 6
    anew = load_images("folder", "val", 8, path=root, in_memory=False, workers=1)
    everything = np.arange(6)
    for one, other in zip(images.read(everything), anew.read(everything), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("prepare", "split", "message"),
    [
        (
            None,
            "train",
            "there is no folder {root}; the images have to be <split>/<class>/* in it, as .jpg, "
            ".jpeg, .png",
        ),
        (
            {},
            "train",
            "{root} has no folders; the images have to be <split>/<class>/* in it, as .jpg, .jpeg, "
            ".png",
        ),
        (SPLITS, "trian", "there is no split of folder 'trian'; did you mean train?"),
        (
            {"train": {}},
            "train",
            "{root}/train has no folders of images, one a class; of the data in {root}, the images "
            "have to be <split>/<class>/* in it, as .jpg, .jpeg, .png",
        ),
        (
            {"train": {"a": 1, "b": 0}},
            "train",
            "{root}/train/b has no images (.jpg, .jpeg, .png); of the data in {root}, the images "
            "have to be <split>/<class>/* in it, as .jpg, .jpeg, .png",
        ),
        (
            {"train": {"a": 1, "b": 1}, "val": {"b": 1}, "docs": {"c": 1}},
            "val",
            "class a is in {root}/train and not in {root}/val; labels number the sorted class "
            "folders, so that all splits have to have the same",
        ),
        (
            {"train": {"a": 1}, "val": {"a": 1, "b": 1}},
            "val",
            "class b is in {root}/val and not in {root}/train; labels number the sorted class "
            "folders, so that all splits have to have the same",
        ),
    ],
)
def test_refusals(tmp_path, monkeypatch, prepare, split, message):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "root"
    if prepare is not None:
        root.mkdir()
        for name in prepare:
            (root / name).mkdir()
        write_folder(root, prepare)
    with pytest.raises(InputError) as error:
        source(root, split)
    assert str(error.value) == message.format(root=root)


def test_a_file_that_has_gone_is_refused(root):
    train = source(root)
    key = train[4].key
    (root / key).unlink()
    with pytest.raises(InputError) as error:
        train[4]
    assert str(error.value).startswith(f"image {key} of {root} cannot be read: ")


def test_the_order_stays_what_it_was(root):
    first = [
        f"train/{name}" for name in ("apple/0005.PNG", "cherry pie/0015.PNG", "apple/0001.jpg")
    ]
    assert keys(source(root))[:3] == first
