import functools
import gc
import io
import threading

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data.decoding import jpeg
from resnet_jax.data.decoding.jpeg import Region, jpeg_decoder
from tests.data.pictures import encode, photo

pytestmark = pytest.mark.skipif(jpeg_decoder() is None, reason="there is no libjpeg-turbo 3 here")

KINDS = {
    "4:4:4": {"subsampling": "4:4:4"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:2:0": {"subsampling": "4:2:0"},
    "progressive": {"progressive": True},
    "with restarts": {"restart_marker_blocks": 3},
    "red, green and blue": {"keep_rgb": True},
}


@functools.cache
def whole(data, factor):
    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, (image.width // factor, image.height // factor))
        return np.atleast_3d(np.asarray(image))


def noisy(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3), dtype=np.uint8)
    return photo(height, width, seed) // 2 + noise


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", [*KINDS, "grey"])
def test_any_part_is_pillows_bit_for_bit(kind, factor):
    decoder = jpeg_decoder()
    rng = np.random.default_rng(factor)
    for height, width in [(1, 1), (7, 5), (16, 16), (33, 47), (131, 97), (240, 321)]:
        if min(height, width) < factor:
            continue
        pixels = noisy(height, width, seed=height)
        if kind == "grey":
            pixels = pixels[..., 0]
        data = encode(pixels, "JPEG", quality=int(rng.integers(40, 98)), **KINDS.get(kind, {}))
        header = decoder.header(data)
        assert header is not None
        assert (header.width, header.height, header.grey) == (width, height, kind == "grey")
        expected = whole(data, factor)
        tall, wide = expected.shape[:2]
        assert (tall, wide) == (-(-height // factor), -(-width // factor))
        for _ in range(12):
            top, left = int(rng.integers(tall)), int(rng.integers(wide))
            region = Region(
                left, top, int(rng.integers(left, wide)) + 1, int(rng.integers(top, tall)) + 1
            )
            found = decoder.decode(data, header, factor, region)[..., :3]
            part = expected[region.upper : region.lower, region.left : region.right]
            np.testing.assert_array_equal(found, np.broadcast_to(part, found.shape))


def test_what_it_does_not_take_is_left_to_pillow():
    data = encode(photo(40, 50), "JPEG")
    cmyk = io.BytesIO()
    Image.fromarray(photo(40, 50)).convert("CMYK").save(cmyk, "JPEG")
    decoder = jpeg_decoder()
    assert decoder.header(data) is not None
    for other in (b"", b"\xff\xd8\xff\xd9", encode(photo(4, 4)), data[:-1], cmyk.getvalue()):
        assert decoder.header(other) is None


def test_damage_is_left_to_pillow():
    data = bytearray(encode(noisy(200, 200), "JPEG"))
    data[len(data) // 2 : len(data) // 2 + 2] = b"\xff\xd9"  # the end, too early
    file = bytes(data)
    decoder = jpeg_decoder()
    header = decoder.header(file)
    assert header is not None
    assert decoder.decode(file, header, 1, Region(0, 0, 200, 200)) is None
    # The decoder is as good as new afterwards.
    test_any_part_is_pillows_bit_for_bit("4:2:0", 1)


def test_each_thread_has_its_own_decoder_while_it_lives(monkeypatch):
    closed, decoders = [], []
    original = jpeg.JpegDecoder.__init__

    def counted(self, library):
        original(self, library)
        jpeg.weakref.finalize(self, closed.append, True)
        decoders.append(id(self))

    monkeypatch.setattr(jpeg.JpegDecoder, "__init__", counted)
    threads = [threading.Thread(target=lambda: (jpeg_decoder(), jpeg_decoder())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert len(decoders) == len(closed) == 3


def test_without_the_library_there_is_no_decoder(monkeypatch):
    monkeypatch.setattr(jpeg, "_of_package", lambda: None)
    monkeypatch.setattr(jpeg.ctypes.util, "find_library", lambda name: "no-such-library.so")
    jpeg._library.cache_clear()
    try:
        assert jpeg_decoder() is None
    finally:
        jpeg._library.cache_clear()
