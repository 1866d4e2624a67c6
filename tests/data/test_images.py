import numpy as np
import pytest
from PIL import Image

from resnet_jax import InputError
from resnet_jax.data import (
    DecodedImages,
    Digits,
    Draws,
    Example,
    MemoryImages,
    augmentation,
    load_images,
)
from tests.data.pictures import encode, photo


class Listed:
    """A source made of a list."""

    class_names = ("zero", "one")

    def __init__(self, *images):
        self._images = images

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        return Example(self._images[index], index % 2, f"listed/{index}")


def in_memory(source, size, **options):
    return MemoryImages(DecodedImages(source, size, workers=2, **options))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_digits_equal_the_original():
    datasets = pytest.importorskip("sklearn.datasets")
    original = datasets.load_digits()
    examples = [example for split in ("train", "test") for example in Digits(split)]
    images = np.stack([example.image for example in examples])
    assert images.dtype == np.uint8
    assert images.shape == (1797, 8, 8, 1)
    np.testing.assert_array_equal(images[..., 0], np.floor(original.images * 255 / 16 + 0.5))
    assert [example.label for example in examples] == original.target.tolist()


def test_digits_know_their_splits():
    train, test = Digits("train"), Digits("test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.class_names == tuple("0123456789")
    assert (train[0].key, train[-1].key, test[0].key) == (
        "digits/0000",
        "digits/1436",
        "digits/1437",
    )
    assert max(int(np.max(example.image)) for example in test) == 255
    with pytest.raises(IndexError):
        test[360]


def test_images_are_read_by_index():
    source = Digits("test")
    images = in_memory(source, 8)
    assert len(images) == 360
    assert images.image_shape == (8, 8, 1)
    assert images.class_names == source.class_names
    pixels, labels = images.read(np.array([7, 0, 7]))
    np.testing.assert_array_equal(pixels, [source[i].image for i in (7, 0, 7)])
    assert labels.tolist() == [source[i].label for i in (7, 0, 7)]
    assert (pixels.dtype, labels.dtype) == (np.uint8, np.int32)
    pixels[:] = 0
    assert images.read(np.array([7]))[0].any(), "what is read is a copy"
    assert images.read(np.array([], np.int64))[0].shape == (0, 8, 8, 1)


@pytest.mark.parametrize("size", [4, 16])
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_resizing_is_pillows(name, size):
    colour = noise(9, 7, 3)
    pixels, _ = in_memory(Listed(colour), size, interpolation=name).read(np.array([0]))
    tall = size * 9 // 7
    resized = Image.fromarray(colour).resize((size, tall), Image.Resampling[name.upper()])
    top = round((tall - size) / 2)
    expected = np.asarray(resized)[top : top + size].astype(int)
    assert np.abs(pixels[0] - expected).max() <= 1, "the same but for rounding"


def test_images_are_grey_if_all_are():
    grey, colour = noise(4, 4, 1), noise(4, 4, 3)
    assert in_memory(Listed(grey, encode(grey[..., 0])), 4).image_shape == (4, 4, 1)
    mixed = in_memory(Listed(grey, colour), 4)
    assert mixed.image_shape == (4, 4, 3)
    pixels, _ = mixed.read(np.array([0, 1]))
    np.testing.assert_array_equal(pixels[0], np.repeat(grey, 3, axis=2))
    np.testing.assert_array_equal(pixels[1], colour)


def test_encoded_images_are_decoded():
    grey, colour = noise(6, 6), noise(6, 6, 3)
    pixels, _ = in_memory(Listed(encode(grey)), 6).read(np.array([0]))
    np.testing.assert_array_equal(pixels[0, ..., 0], grey)
    pixels, _ = in_memory(Listed(encode(colour)), 6).read(np.array([0]))
    np.testing.assert_array_equal(pixels[0], colour)


@pytest.mark.parametrize(
    ("images", "size", "message"),
    [
        ([noise(4, 4, 1)], 0, "an image size is at least 1 pixel, and 0 is not"),
        ([], 4, "the data set has no examples"),
        (
            [noise(4, 4, 3), noise(4, 4, 2)],
            4,
            "image listed/1 has 2 channels; it must have 1 or 3",
        ),
        ([noise(4, 4, 1), b"no image", b""], 4, "image listed/1 cannot be decoded: "),
        ([b"no image"], 4, "image listed/0 cannot be decoded: it is not a JPEG, PNG"),
        ([encode(noise(64, 64))[:-500]], 4, "image listed/0 cannot be decoded: "),
    ],
)
def test_bad_images_are_refused(images, size, message):
    with pytest.raises(InputError) as error:
        in_memory(Listed(*images), size)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("augment", ["none", "scale_jitter", "inception_crop"])
def test_what_is_read_does_not_depend_on_the_workers(augment):
    source = Listed(*(encode(photo(40 + i, 60 - i, seed=i), "JPEG") for i in range(20)))
    policy = augmentation(augment, image_size=16)
    order = np.random.default_rng(0).permutation(20)

    def read(workers, chosen):
        images = DecodedImages(source, 16, resize=18, workers=workers)
        crops = policy.crops(Draws(5, 3, 20, slice(0, 20)))
        return images.read(order[chosen], crops if chosen == slice(None) else None)

    pixels, labels = read(1, slice(None))
    assert (pixels.shape, labels.tolist()) == ((20, 16, 16, 3), (order % 2).tolist())
    for workers in (2, 5, 32):
        for one, other in zip(read(workers, slice(None)), (pixels, labels), strict=True):
            np.testing.assert_array_equal(one, other)
    centre, _ = read(2, slice(0, 20))
    assert (centre == pixels).all() == (augment == "none")


def test_each_row_gets_its_own_crop():
    images = DecodedImages(Listed(photo(60, 80)), 16, workers=2)
    crops = augmentation("inception_crop", image_size=16).crops(Draws(5, 3, 9, slice(0, 9)))
    assert crops is not None
    pixels, _ = images.read(np.zeros(9, np.int64), crops)
    for drawn in range(9):

        def crop(row, height, width, drawn=drawn):
            return crops(drawn, height, width)

        alone, _ = images.read(np.zeros(1, np.int64), crop)
        np.testing.assert_array_equal(alone[0], pixels[drawn])
    assert len({image.tobytes() for image in pixels}) == 9


def test_memory_keeps_the_view_for_evaluation():
    source = Listed(*(encode(photo(40, 50, seed=i), "JPEG") for i in range(9)))
    anew = DecodedImages(source, 16, resize=20, interpolation="bicubic")
    for one, other in zip(
        MemoryImages(anew).read(np.arange(9)), anew.read(np.arange(9)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_random_crops_of_what_is_in_memory_are_refused():
    crops = augmentation("scale_jitter", image_size=8).crops(Draws(0, 0, 1, slice(0, 1)))
    with pytest.raises(InputError) as error:
        in_memory(Listed(photo(8, 8)), 8).read(np.array([0]), crops)
    assert str(error.value) == (
        "images are in memory at the size of the network's input, and have no random crops; set "
        'data.in_memory to False, or take the augmentation "pad_crop_flip"'
    )


def test_load_images_by_name():
    images = load_images("digits", "train", 16)
    assert len(images) == 1437
    assert images.image_shape == (16, 16, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 7}, "images resized to 7 pixels have no crop of 8"),
        ({"interpolation": "cubic"}, "there is no interpolation 'cubic'; did you mean bicubic?"),
        ({"workers": 0}, "there is at least 1 worker, and 0 were asked for"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError) as error:
        load_images("digits", "train", 8, **options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        ("digit", "train", "there is no data source 'digit'; did you mean digits?"),
        ("folder", "train", "data.path is not set; it is the folder with the images"),
        ("tfds", "train", "data.name is not set; it is the data set of tfds, such as cifar10"),
        ("digits", "tests", "there is no split of digits 'tests'; did you mean test?"),
    ],
)
def test_unknown_names_are_refused(source, split, message):
    with pytest.raises(InputError) as error:
        load_images(source, split, 8)
    assert str(error.value) == message


def test_a_name_is_of_tfds_alone():
    with pytest.raises(InputError, match="there is no split of digits 'tests'"):
        load_images("digits", "tests", 8, name="imagenet2012")
