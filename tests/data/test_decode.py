import functools
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from resnet_jax import InputError
from resnet_jax.data import (
    Box,
    CentreCrop,
    Draws,
    Example,
    InceptionCrop,
    Interpolation,
    ScaleJitter,
    decode_crop,
)
from tests.data.pictures import encode, photo

SIZE = 24
FILTERS: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def whole(height, width):
    return Box(0, 0, width, height)


def decoded(image, place=whole, size=SIZE, interpolation: Interpolation = "bilinear"):
    out = np.empty((size, size, 3), np.uint8)
    grey = decode_crop(Example(image, 0, "the one"), place, out, interpolation)
    return out, grey


def difference(one, other):
    return np.abs(one.astype(int) - np.asarray(other).astype(int))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("name", ["PNG", "JPEG"])
@pytest.mark.parametrize(("height", "width"), [(60, 45), (24, 24), (20, 31)])
def test_crops_equal_resizing_the_whole_image_first(name, interpolation, height, width):
    data = encode(photo(height, width), name)
    with Image.open(io.BytesIO(data)) as file:
        image = file.convert("RGB")
    for side in (24, 33, 40):
        crops = ScaleJitter(SIZE, side, side)(Draws(0, 0, 8, slice(0, 8)))
        shorter = min(height, width)
        tall, wide = side * height // shorter, side * width // shorter
        resized = np.asarray(image.resize((wide, tall), FILTERS[interpolation]))
        for row in range(8):
            box = crops(row, height, width)
            top, left = round(box.upper * tall / height), round(box.left * wide / width)
            out, _ = decoded(data, functools.partial(crops, row), interpolation=interpolation)
            expected = resized[top : top + SIZE, left : left + SIZE]
            assert difference(out, expected).max() <= 1, "the same but for rounding"


def test_boxes_of_whole_pixels_are_copied():
    pixels = photo(60, 45)
    out, _ = decoded(encode(pixels), lambda height, width: Box(7, 11, 7 + SIZE, 11 + SIZE))
    np.testing.assert_array_equal(out, pixels[11 : 11 + SIZE, 7 : 7 + SIZE])


def test_pixels_and_their_file_give_the_same():
    pixels = photo(60, 45)
    centre = functools.partial(CentreCrop(SIZE, 30), 0)
    np.testing.assert_array_equal(decoded(pixels, centre)[0], decoded(encode(pixels), centre)[0])


def test_large_jpegs_are_reduced_without_harm(monkeypatch):
    reductions = []
    for height, width in [(97, 130), (403, 391), (801, 645)]:
        data = encode(photo(height, width), "JPEG", quality=95)
        for crop in (ScaleJitter(SIZE, 30, 60), InceptionCrop()):
            crops = crop(Draws(3, 0, 20, slice(0, 20)))
            for row in range(20):
                reduced, _ = decoded(data, functools.partial(crops, row))
                with monkeypatch.context() as patch:
                    patch.setattr("resnet_jax.data.decode._reduction", lambda box, shape: 1)
                    full, _ = decoded(data, functools.partial(crops, row))
                reductions.append((reduced != full).any())
                assert np.sqrt(np.square(difference(reduced, full)).mean()) < 1.0
                assert difference(reduced, full).max() <= 6
    assert 0.3 < np.mean(reductions) < 1


@pytest.mark.parametrize(
    ("mode", "grey"),
    [("L", True), ("1", True), ("RGB", False), ("CMYK", False), ("P", False), ("LA", False)],
)
def test_every_kind_becomes_red_green_and_blue(mode, grey):
    image = Image.fromarray(photo(SIZE, SIZE)).convert(mode)
    file = io.BytesIO()
    lossless = mode != "CMYK"  # which only a JPEG can have
    image.save(file, "PNG" if lossless else "JPEG", quality=100)
    out, was_grey = decoded(file.getvalue())
    assert was_grey == grey
    assert difference(out, image.convert("RGB")).max() <= (0 if lossless else 6)


def test_grey_pixels_are_grey():
    pixels = photo(SIZE, SIZE)[..., :1]
    out, grey = decoded(pixels)
    assert grey
    np.testing.assert_array_equal(out, np.repeat(pixels, 3, axis=2))


def claims(width, height):
    """Returns a small PNG whose header claims a size."""
    data = encode(photo(4, 4))
    header = struct.pack(">II", width, height) + data[24:29]
    checked = b"IHDR" + header
    return data[:12] + checked + struct.pack(">I", zlib.crc32(checked)) + data[33:]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "image the one cannot be decoded: cannot identify image file"),
        (b"no image", "image the one cannot be decoded: cannot identify image file"),
        (encode(photo(99, 99))[:-900], "image the one cannot be decoded: "),
        (encode(photo(99, 99), "JPEG")[:-500], "image the one cannot be decoded: "),
        (
            claims(8193, 8192),
            "image the one has 8193 x 8192 pixels; more than 67108864 are not decoded, because a "
            "small file can claim any number",
        ),
        (claims(60_000, 60_000), "image the one cannot be decoded: Image size (3600000000 pixels)"),
        (np.zeros((4, 4, 2), np.uint8), "image the one has 2 channels; it has to have 1 or 3"),
    ],
)
def test_refusals_name_the_image(image, message):
    with pytest.raises(InputError) as error:
        decoded(image)
    assert str(error.value).startswith(message)
