import io
import zlib

import numpy as np
import pytest
from PIL import Image

from resnet_jax import InputError
from resnet_jax.data.prepare import shrink
from resnet_jax.data.sources import Example
from tests.data.pictures import encode, photo


def shrunk(image, shorter_side=20, quality=90):
    return shrink(Example(image, 0, "key"), shorter_side, quality)


def decoded(content):
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize("shorter_side", [20, 21, None])
def test_what_is_small_enough_is_left_as_it_is(name, shorter_side):
    content = encode(photo(20, 30), name)
    assert shrunk(content, shorter_side) == content


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("shape", "expected"), [((60, 90), (20, 30)), ((90, 60), (30, 20)), ((21, 500), (20, 476))]
)
def test_the_shorter_side_is_made_smaller(name, shape, expected):
    image = decoded(shrunk(encode(photo(*shape), name)))
    assert image.format == "JPEG"
    assert (image.height, image.width) == expected


def test_what_is_left_out_is_averaged():
    # Lines of one pixel: without averaging some of them would be all there is.
    lines = np.zeros((200, 200, 3), np.uint8)
    lines[::2] = 255
    pixels = np.asarray(decoded(shrunk(encode(lines), 20)))
    assert np.abs(pixels[2:-2].astype(int) - 127).max() < 8


def test_the_image_is_the_same():
    original = photo(120, 160)
    pixels = np.asarray(decoded(shrunk(encode(original, "JPEG", quality=95), 60)))
    means = original.reshape(60, 2, 80, 2, 3).astype(int).mean((1, 3))
    assert np.abs(pixels - means).mean() < 3


def test_quality_is_that_of_the_jpeg():
    content = encode(photo(200, 200))
    assert len(shrunk(content, 100, 95)) > len(shrunk(content, 100, 50))


def test_grey_stays_grey():
    grey = photo(60, 60)[..., 0]
    assert decoded(shrunk(encode(grey, "JPEG"))).mode == "L"


@pytest.mark.parametrize("shorter_side", [20, None])
def test_cmyk_becomes_rgb(shorter_side):
    content = io.BytesIO()
    Image.fromarray(photo(40, 40)).convert("CMYK").save(content, "JPEG", quality=95)
    image = decoded(shrunk(content.getvalue(), shorter_side, 95))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    expected = photo(40, 40).astype(int)
    if shorter_side is not None:
        expected = expected.reshape(20, 2, 20, 2, 3).mean((1, 3))
    assert np.abs(np.asarray(image).astype(int) - expected).mean() < 10


@pytest.mark.parametrize("shorter_side", [20, None])
def test_colours_of_a_palette_and_what_is_transparent(shorter_side):
    palette = Image.fromarray(photo(40, 40)).quantize(16)
    content = io.BytesIO()
    palette.save(content, "PNG", transparency=bytes(range(16)))
    result = shrunk(content.getvalue(), shorter_side)
    if shorter_side is None:
        assert result == content.getvalue()
    else:
        assert decoded(result).mode == "RGB"


@pytest.mark.parametrize("name", ["BMP", "GIF"])
def test_other_files_become_png_or_jpeg(name):
    content = encode(photo(40, 40), name)
    whole = decoded(shrunk(content, None))
    assert whole.format == "PNG"
    expected = np.asarray(decoded(content).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(whole), expected)
    assert decoded(shrunk(content, 20)).size == (20, 20)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_become_png(channels):
    pixels = photo(28, 28)[..., :channels]
    image = decoded(shrunk(pixels, None))
    assert image.format == "PNG"
    np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)
    assert decoded(shrunk(pixels, 14)).size == (14, 14)


def test_how_a_photo_was_held_is_kept_and_nothing_else():
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker of the camera"
    content = encode(photo(60, 40), "JPEG", exif=exif)
    assert dict(decoded(shrunk(content)).getexif()) == {0x0112: 6}
    assert not decoded(shrunk(encode(photo(60, 40), "JPEG"))).getexif()


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.95])
def test_what_cannot_be_decoded_is_refused_even_if_it_is_small(name, kept):
    content = encode(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), name)
    length = kept if isinstance(kept, int) else int(len(content) * kept)
    for shorter_side in (20, None):
        with pytest.raises(InputError, match="it cannot be decoded: "):
            shrunk(content[:length], shorter_side)


def test_what_is_no_image_is_refused():
    with pytest.raises(InputError) as error:
        shrunk(b"no image")
    assert str(error.value) == ("it cannot be decoded: it is not a JPEG, PNG, WEBP, GIF or BMP")
    with pytest.raises(InputError):
        shrunk(encode(photo(9, 9), "TIFF"))


def test_a_photo_of_several_frames_is_a_jpeg():
    frames = [Image.fromarray(photo(40, 40, seed)) for seed in range(2)]
    content = io.BytesIO()
    frames[0].save(content, "MPO", save_all=True, append_images=frames[1:])
    assert Image.open(content).format == "MPO"
    assert shrunk(content.getvalue(), None) == content.getvalue()
    assert decoded(shrunk(content.getvalue())).format == "JPEG"


def test_of_16_bits_the_upper_8_are_kept():
    pixels = np.arange(0, 64000, 40, np.uint16).reshape(40, 40)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    image = np.asarray(decoded(shrunk(content.getvalue(), 20, 100))).astype(int)
    means = (pixels >> 8).astype(int).reshape(20, 2, 20, 2).mean((1, 3))
    assert np.abs(image - means).mean() < 2


@pytest.mark.parametrize("side", [9000, 10_000, 60_000])
def test_enormous_images_are_refused_by_their_header(side):
    content = bytearray(encode(photo(8, 8), "PNG"))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    with pytest.raises(InputError) as error:
        shrunk(bytes(content))
    assert str(error.value) == f"it has {side} x {side} pixels, more than 67108864"


def test_a_lack_of_memory_is_no_fault_of_the_image(monkeypatch):
    def no_memory(file):
        raise MemoryError

    monkeypatch.setattr("resnet_jax.data.prepare.open_image", no_memory)
    with pytest.raises(MemoryError):
        shrunk(encode(photo(8, 8)))
