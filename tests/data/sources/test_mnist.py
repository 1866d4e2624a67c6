import gzip
import os
import struct

import numpy as np
import pytest

from resnet_jax import InputError
from resnet_jax.data import DecodedImages, MemoryImages, load_images, load_source
from resnet_jax.data.sources.digits import read_idx

COUNTS = {"train": 6, "t10k": 3}
REAL = os.environ.get("RESNET_JAX_MNIST", "")


def idx(array, shape=None):
    shape = array.shape if shape is None else shape
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()


def digits(prefix):
    rng = np.random.default_rng(COUNTS[prefix])
    images = rng.integers(0, 256, (COUNTS[prefix], 28, 28), np.uint8)
    return images, np.arange(COUNTS[prefix], dtype=np.uint8)[::-1].copy()


@pytest.fixture
def root(tmp_path):
    for prefix in COUNTS:
        images, labels = digits(prefix)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_a_digit_stands_in_the_middle_of_32_pixels(root, split, prefix):
    source = load_source("mnist", split, path=root)
    images, labels = digits(prefix)
    assert len(source) == COUNTS[prefix]
    assert source.class_names == tuple("0123456789")
    for i in range(len(source)):
        example = source[i]
        pixels = np.asarray(example.image)
        np.testing.assert_array_equal(pixels[..., 0], np.pad(images[i], 2))
        assert (example.label, example.key) == (labels[i], f"mnist/{split}/{i:05}")
    np.testing.assert_array_equal(source[-1].image, source[len(source) - 1].image)
    with pytest.raises(IndexError):
        source[len(source)]


def test_gzipped_files_are_the_same(root):
    before = load_images("mnist", "train", 32, path=root)
    for path in list(root.iterdir()):
        (root / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    after = load_images("mnist", "train", 32, path=root)
    for one, other in zip(before.read(np.arange(6)), after.read(np.arange(6)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("size", "border"), [(32, 2), (28, 0)])
def test_nothing_is_resampled_at_either_size(root, size, border):
    images = load_images("mnist", "train", size, path=root, resize=32)
    assert images.image_shape == (size, size, 1)
    wanted, _ = digits("train")
    margins = ((0, 0), (border, border), (border, border))
    np.testing.assert_array_equal(images.read(np.arange(6))[0][..., 0], np.pad(wanted, margins))


def test_slices_are_those_of_the_other_sources(root):
    joined = load_source("mnist", "test+train[:2]", path=root)
    assert [joined[i].key for i in range(5)][2:] == [
        "mnist/test/00002",
        "mnist/train/00000",
        "mnist/train/00001",
    ]
    with pytest.raises(InputError, match="no split of mnist 'tets'; did you mean test"):
        load_source("mnist", "tets", path=root)


def test_an_object_store_will_do(root, object_store):
    for path in root.iterdir():
        (object_store / path.name).write_bytes(path.read_bytes())
    assert len(load_source("mnist", "train", path=object_store)) == 6


def damage(content, start, new):
    return content[:start] + new + content[start + len(new) :]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("images-idx3", lambda c: c[:-1], "should have 4704 bytes .*6x28x28.*, and has only 4703"),
        ("images-idx3", lambda c: c + b"x", r"should have 4704 bytes .*, and has more$"),
        ("images-idx3", lambda c: c[:9], "ends within its header"),
        ("images-idx3", lambda c: b"", "is not an IDX file of unsigned bytes with 3 dimensions"),
        ("images-idx3", lambda c: damage(c, 2, b"\x0d"), "is not an IDX file of unsigned bytes"),
        ("images-idx3", lambda c: damage(c, 4, b"\xff" * 12), "is not read, .* more than 1 GiB"),
        ("images-idx3", lambda c: damage(c, 7, b"\x0c"), "should have 9408 bytes"),
        ("images-idx3", lambda c: idx(np.zeros((6, 8, 8), np.uint8)), "images of 8x8 pixels, not"),
        ("labels-idx1", lambda c: idx(np.zeros((6, 1), np.uint8)), "with 1 dimensions"),
        ("labels-idx1", lambda c: idx(np.zeros(5, np.uint8)), "6 images and .* has 5 labels"),
        ("labels-idx1", lambda c: c[:-1] + b"\x0a", "has label 10; digits end at 9"),
    ],
)
def test_what_is_no_such_file_is_refused(root, name, change, message):
    path = root / f"train-{name}-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        load_source("mnist", "train", path=root)
    assert len(load_source("mnist", "test", path=root)) == 3


@pytest.mark.parametrize(
    "change",
    [lambda c: c[:-9], lambda c: c[:40] + bytes(20) + c[60:], lambda c: b"<html>", lambda c: c[:6]],
)
def test_what_cannot_be_unzipped_is_refused(root, change):
    path = root / "train-images-idx3-ubyte"
    (root / f"{path.name}.gz").write_bytes(change(gzip.compress(path.read_bytes())))
    path.unlink()
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz cannot be read: "):
        load_source("mnist", "train", path=root)


def test_a_zip_bomb_is_not_unzipped(tmp_path, monkeypatch):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(2**26, np.uint8), shape=(10,))))
    read, given = gzip.GzipFile.read, []
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n: given.append(n) or read(self, n))
    with pytest.raises(InputError, match=r"should have 10 bytes .*, and has more"):
        read_idx(path, 1)
    assert sum(given) < 30


def test_a_missing_file_is_said_to_be_had_elsewhere(root):
    (root / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match=r"no t10k-labels-idx1-ubyte or .*\.gz in .*https://"):
        load_source("mnist", "test", path=root)
    with pytest.raises(InputError, match=r"data\.path is not set; it is the folder with the files"):
        load_source("mnist", "test")


@pytest.mark.skipif(not REAL, reason="RESNET_JAX_MNIST is not set to the folder with MNIST's files")
@pytest.mark.parametrize(
    ("split", "first", "counts"),
    [
        ("train", [5, 0, 4, 1, 9], [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("test", [7, 2, 1, 0, 4], [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ],
)
def test_the_real_files_have_the_published_counts(split, first, counts):
    source = load_source("mnist", split, path=REAL)
    labels = [source[i].label for i in range(len(source))]
    assert labels[:5] == first
    assert np.bincount(labels).tolist() == counts
    some = MemoryImages(DecodedImages(load_source("mnist", f"{split}[:9]", path=REAL), 32))
    assert some.image_shape == (32, 32, 1)
