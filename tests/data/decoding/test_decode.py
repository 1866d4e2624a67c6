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
    Draws,
    Example,
    InceptionCrop,
    Interpolation,
    ScaleJitter,
    View,
    decode_crop,
)
from resnet_jax.data.decoding.jpeg import jpeg_decoder
from tests.data.pictures import encode, photo

SIZE = 24
FILTERS: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def centre_of(size, resize):
    return lambda height, width: View(resize, size)(height, width).box


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
    centre = centre_of(SIZE, 30)
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
                    patch.setattr(
                        "resnet_jax.data.decoding.decode._reduction", lambda box, shape: 1
                    )
                    full, _ = decoded(data, functools.partial(crops, row))
                reductions.append((reduced != full).any())
                assert np.sqrt(np.square(difference(reduced, full)).mean()) < 1.0
                assert difference(reduced, full).max() <= 6
    assert 0.3 < np.mean(reductions) < 1


@pytest.mark.parametrize(
    ("mode", "grey"),
    [("L", True), ("1", True), ("RGB", False), ("CMYK", False), ("P", False), ("LA", True)],
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
        (b"", "image the one cannot be decoded: it is not a JPEG, PNG, WEBP, GIF or BMP"),
        (b"no image", "image the one cannot be decoded: it is not a JPEG, PNG, WEBP, GIF or BMP"),
        (encode(photo(99, 99))[:-900], "image the one cannot be decoded: "),
        (encode(photo(99, 99), "JPEG")[:-500], "image the one cannot be decoded: "),
        (
            claims(8193, 8192),
            "image the one has 8193 x 8192 pixels; more than 67108864 are not decoded, because a "
            "small file can claim any number",
        ),
        (
            claims(12_000, 9_000),  # of which Pillow would warn
            "image the one has 12000 x 9000 pixels; more than 67108864 are not decoded, because a "
            "small file can claim any number",
        ),
        (
            claims(60_000, 60_000),
            "image the one has 60000 x 60000 pixels; more than 67108864 are not decoded, because a "
            "small file can claim any number",
        ),
        (np.zeros((4, 4, 2), np.uint8), "image the one has 2 channels; it must have 1 or 3"),
    ],
)
def test_refusals_name_the_image(image, message):
    with pytest.raises(InputError) as error:
        decoded(image)
    assert str(error.value).startswith(message)


def resized_whole(image, size, interpolation):
    """Returns torchvision's Resize on an image of Pillow's."""
    shorter = min(image.size)
    return image.resize(
        (size * image.width // shorter, size * image.height // shorter), FILTERS[interpolation]
    )


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("name", ["PNG", "JPEG"])
def test_the_view_for_evaluation_is_pillows_resize_and_a_centre_crop(name, interpolation):
    sizes = [(24, 24), (25, 31), (97, 64), (201, 133), (128, 512), (375, 500), (1000, 1203)]
    for seed, (height, width) in enumerate(sizes):
        noise = np.random.default_rng(seed).integers(0, 80, (height, width, 3), dtype=np.uint8)
        data = encode(photo(height, width, seed) // 3 * 2 + noise, name)
        with Image.open(io.BytesIO(data)) as file:
            image = file.convert("RGB")
        for size, resize in [(24, 24), (24, 27), (40, 46), (56, 64)]:
            whole = np.asarray(resized_whole(image, resize, interpolation))
            top, left = (round((side - size) / 2) for side in whole.shape[:2])
            out = np.empty((size, size, 3), np.uint8)
            place = centre_of(size, resize)
            decode_crop(Example(data, 0, "it"), place, out, interpolation, exact=True)
            expected = whole[top : top + size, left : left + size]
            assert difference(out, expected).max() <= 1


@pytest.mark.parametrize("interpolation", FILTERS)
def test_both_decoders_give_the_same(monkeypatch, interpolation):
    if jpeg_decoder() is None:
        pytest.skip("there is no libjpeg-turbo 3 here")
    for seed, (height, width) in enumerate([(60, 45), (131, 97), (403, 391), (801, 645)]):
        for pixels in (photo(height, width, seed), photo(height, width, seed)[..., 1]):
            data = encode(pixels, "JPEG", quality=90, progressive=bool(seed % 2))
            for crop in (ScaleJitter(SIZE, 30, 60), InceptionCrop()):
                crops = crop(Draws(seed, 0, 9, slice(0, 9)))
                for row in range(9):
                    place = functools.partial(crops, row)
                    fast = decoded(data, place, interpolation=interpolation)
                    with monkeypatch.context() as patch:
                        patch.setattr("resnet_jax.data.decoding.decode.jpeg_decoder", lambda: None)
                        slow = decoded(data, place, interpolation=interpolation)
                    np.testing.assert_array_equal(fast[0], slow[0])
                    assert fast[1] == slow[1]


@pytest.fixture(params=["libjpeg-turbo", "Pillow"])
def decoder(request, monkeypatch):
    if request.param == "Pillow":
        monkeypatch.setattr("resnet_jax.data.decoding.decode.jpeg_decoder", lambda: None)


def save(image, name, **options):
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


@pytest.mark.usefixtures("decoder")
class TestRules:
    def test_grey_jpegs_have_three_equal_channels(self):
        out, grey = decoded(encode(photo(50, 40)[..., 0], "JPEG"))
        assert grey
        np.testing.assert_array_equal(out, np.repeat(out[..., :1], 3, axis=2))

    def test_cmyk_is_inverted_as_adobe_has_it(self):
        image = Image.fromarray(photo(SIZE, SIZE))
        data = save(image.convert("CMYK"), "JPEG", quality=95)
        assert b"Adobe" in data
        assert difference(decoded(data)[0], image).max() <= 12

    def test_ycck_is_as_pillow_has_it(self):
        # The same file, whose marker says that the first three channels are luma and chroma.
        data = save(Image.fromarray(photo(SIZE, SIZE)).convert("CMYK"), "JPEG", quality=95)
        at = data.index(b"Adobe") + 11
        ycck = data[:at] + b"\2" + data[at + 1 :]
        with Image.open(io.BytesIO(ycck)) as image:
            expected = image.convert("RGB")
        assert difference(decoded(data)[0], expected).max() > 12
        np.testing.assert_array_equal(decoded(ycck)[0], expected)

    @pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "L", "LA"])
    def test_transparency_is_dropped(self, mode):
        image = Image.fromarray(photo(SIZE, SIZE)).convert(mode)
        expected = image.convert("RGB")
        options = {}
        if mode in ("RGBA", "LA"):
            image.putalpha(Image.fromarray(photo(SIZE, SIZE, 1)[..., 0]))
        if mode == "P":
            options["transparency"] = bytes(range(256))
        data = save(image, "PNG", **options)
        np.testing.assert_array_equal(decoded(data)[0], expected)

    def test_of_16_bits_the_upper_8_are_taken(self):
        levels = np.random.default_rng(0).integers(0, 2**16, (SIZE, SIZE), dtype=np.uint16)
        out, grey = decoded(save(Image.fromarray(levels), "PNG"))
        assert grey
        np.testing.assert_array_equal(out[..., 0], levels >> 8)

    def test_of_16_bits_of_colour_too(self):
        levels = np.random.default_rng(0).integers(0, 2**16, (SIZE, SIZE, 3), dtype=np.uint16)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
        chunks = [
            (b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
        np.testing.assert_array_equal(decoded(data)[0], levels >> 8)

    @pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
    def test_the_content_says_what_a_file_is(self, name):
        pixels = photo(SIZE, SIZE)
        data = encode(pixels, name)
        out = np.empty((SIZE, SIZE, 3), np.uint8)
        decode_crop(Example(data, 0, "picture.jpg"), whole, out, "bilinear")
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(out, image.convert("RGB"))

    @pytest.mark.parametrize("name", ["TIFF", "PPM", "EPS", "PDF"])
    def test_what_is_not_for_strangers_files_is_refused(self, name):
        with pytest.raises(
            InputError, match=r"cannot be decoded: it is not a JPEG, PNG, WEBP, GIF"
        ):
            decoded(encode(photo(SIZE, SIZE), name))

    def test_the_first_frame_is_taken(self):
        frames = [Image.fromarray(photo(SIZE, SIZE, seed)).convert("P") for seed in range(3)]
        data = save(frames[0], "GIF", save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(decoded(data)[0], frames[0].convert("RGB"))

    def test_the_cameras_orientation_is_ignored(self):
        pixels = photo(40, 60)
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees
        turned = encode(pixels, "JPEG", exif=exif)
        np.testing.assert_array_equal(decoded(turned)[0], decoded(encode(pixels, "JPEG"))[0])

    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
    @pytest.mark.parametrize("missing", [1, 2, 30, 1000])
    def test_truncated_jpegs_are_refused_wherever_the_crop_is(self, options, missing):
        data = encode(photo(200, 160), "JPEG", quality=95, **options)
        assert len(data) > 3000
        with pytest.raises(InputError, match=r"cannot be decoded: "):
            decoded(data[:-missing], lambda height, width: Box(0, 0, 8, 8))

    def test_enormous_jpegs_are_refused_by_their_header(self):
        data = bytearray(encode(photo(16, 16), "JPEG"))
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 9000, 9000)
        with pytest.raises(InputError, match=r"^image the one has 9000 x 9000 pixels; more than"):
            decoded(bytes(data))

    @pytest.mark.parametrize("name", ["PNG", "JPEG"])
    def test_one_pixel_is_an_image(self, name):
        out, _ = decoded(encode(np.full((1, 1, 3), 90, np.uint8), name))
        assert difference(out, 90).max() <= 1


def test_the_view_for_evaluation_is_not_reduced(monkeypatch):
    data = encode(photo(801, 645), "JPEG")
    out = np.empty((SIZE, SIZE, 3), np.uint8)
    monkeypatch.setattr("resnet_jax.data.decoding.decode._reduction", lambda box, shape: 1 // 0)
    decode_crop(Example(data, 0, "it"), whole, out, "bilinear", exact=True)
    with Image.open(io.BytesIO(data)) as image:
        expected = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    assert difference(out, expected).max() <= 1
