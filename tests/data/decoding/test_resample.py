import functools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import Box, Example, ScaleJitter, decode_crop
from resnet_jax.data.decoding.decode import _SUPPORT, _compiled_resample, _resample
from resnet_jax.data.draws import Draws
from tests.data.pictures import encode, photo

resample = _compiled_resample()
pytestmark = pytest.mark.skipif(resample is None, reason="there is no numba here")


def words(pixels):
    """Returns red, green, blue and something else as one number a pixel."""
    return np.dstack([pixels, pixels[..., :1] ^ 0x55]).view(np.uint32)[..., 0]


def of_pillow(pixels, box, size, interpolation):
    out = np.zeros((*size, 3), np.uint8)
    _resample(Image.fromarray(pixels), box, out, interpolation)
    return out


def both(pixels, box, size, interpolation):
    """Returns the pixels of the compiled form and of Pillow."""
    ours = np.zeros((*size, 3), np.uint8)
    resample(words(pixels), *box, _SUPPORT[interpolation], ours)
    return ours, of_pillow(pixels, box, size, interpolation)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_it_is_pillows_bit_for_bit(interpolation):
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 200, 2)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if rng.integers(2):  # as of black and white, where a filter swings over
            pixels = (pixels > 128).astype(np.uint8) * np.uint8(255)
        left, right = np.sort(rng.uniform(0, width, 2))
        upper, lower = np.sort(rng.uniform(0, height, 2))
        if right - left < 0.1 or lower - upper < 0.1:
            continue
        box = Box(float(left), float(upper), float(right), float(lower))
        ours, pillows = both(pixels, box, rng.integers(1, 70, 2), interpolation)
        np.testing.assert_array_equal(ours, pillows)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 32), (224, 224), (300, 17)])
def test_whole_pixels_too(interpolation, size):
    pixels = np.random.default_rng(1).integers(0, 256, (320, 290, 3), dtype=np.uint8)
    for box in (Box(0, 0, 290, 320), Box(3, 5, 3 + size[1] // 2, 5 + size[0]), Box(0, 0, 1, 1)):
        ours, pillows = both(pixels, box, size, interpolation)
        np.testing.assert_array_equal(ours, pillows)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(1, 1), (2, 31), (17, 15)])
def test_small_images_and_parts_of_images(interpolation, size):
    rng = np.random.default_rng(0)
    for height, width in [(1, 1), (1, 18), (2, 5), (5, 17), (33, 3)]:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        box = Box(0, 0, width, height)
        around = rng.integers(0, 2**32, (height + 9, width + 9), dtype=np.uint32)
        image = around[2 : 2 + height, 3 : 3 + width]
        image[:] = words(pixels)
        out = np.zeros((*size, 3), np.uint8)
        resample(image, *box, _SUPPORT[interpolation], out)
        np.testing.assert_array_equal(out, of_pillow(pixels, box, size, interpolation))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(1, 65535), (65535, 1)])
def test_the_narrowest_and_the_longest(interpolation, shape):
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    height, width = shape
    for box in (Box(0, 0, width, height), Box(width * 0.3, height * 0.9, width, height)):
        for size in [(1, 1), (3, 24), (24, 3)]:
            ours, pillows = both(pixels, box, size, interpolation)
            np.testing.assert_array_equal(ours, pillows)


def test_threads_do_not_disturb_each_other():
    pixels = np.random.default_rng(3).integers(0, 256, (150, 131, 3), dtype=np.uint8)
    boxes = [Box(left, 0.5 * left, left + 60, 150) for left in range(0, 70, 3)]
    expected = [both(pixels, box, (40, 50), "bilinear")[1] for box in boxes]

    def ours(box):
        return both(pixels, box, (40, 50), "bilinear")[0]

    with ThreadPoolExecutor(16) as pool:
        for _ in range(10):
            for found, wanted in zip(pool.map(ours, boxes), expected, strict=True):
                np.testing.assert_array_equal(found, wanted)


def test_where_numba_compiles_nothing_there_is_pillow(monkeypatch):
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    monkeypatch.delitem(sys.modules, "resnet_jax.data.decoding.resample")
    assert _compiled_resample.__wrapped__() is None


def test_where_it_cannot_be_compiled_the_images_are_the_same(monkeypatch):
    data = encode(photo(131, 97), "JPEG")
    place = functools.partial(ScaleJitter(24, 30, 60)(Draws(0, 0, 1, slice(0, 1))), 0)
    compiled, plain = (np.zeros((24, 24, 3), np.uint8) for _ in range(2))
    decode_crop(Example(data, 0, "it"), place, compiled, "bilinear")
    monkeypatch.setitem(sys.modules, "resnet_jax.data.decoding.resample", None)
    assert _compiled_resample.__wrapped__() is None
    monkeypatch.setattr("resnet_jax.data.decoding.decode._compiled_resample", lambda: None)
    decode_crop(Example(data, 0, "it"), place, plain, "bilinear")
    np.testing.assert_array_equal(compiled, plain)


def test_where_numba_compiles_nothing_every_thread_falls_back():
    """Threads that import a module at once get what it had defined before it failed."""
    program = """
import threading
from concurrent.futures import ThreadPoolExecutor
from resnet_jax.data.decoding.decode import _compiled_resample
together = threading.Barrier(8)
def ask(_):
    together.wait()
    return _compiled_resample()
with ThreadPoolExecutor(8) as pool:
    assert list(pool.map(ask, range(8))) == [None] * 8
"""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
