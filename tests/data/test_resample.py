import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import Box
from resnet_jax.data.decode import _SUPPORT, _compiled_resample, _resample

resample = _compiled_resample()
pytestmark = pytest.mark.skipif(resample is None, reason="there is no numba here")


def both(pixels, box, size, interpolation):
    """Returns what is compiled gives, and Pillow."""
    ours, pillows = (np.zeros((*size, 3), np.uint8) for _ in range(2))
    padded = np.dstack([pixels, pixels[..., :1] ^ 0x55]).view(np.uint32)[..., 0]
    resample(padded, *box, _SUPPORT[interpolation], ours)
    _resample(Image.fromarray(pixels), box, pillows, interpolation)
    return ours, pillows


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_it_is_pillows_bit_for_bit(interpolation):
    rng = np.random.default_rng(0)
    for _ in range(400):
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
