"""From an image file to the pixels of a crop."""

import functools
import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from resnet_jax.data.crops import Box
from resnet_jax.data.decoding.image_file import JPEG, MOST_PIXELS, in_colours, open_image
from resnet_jax.data.decoding.jpeg import Region, jpeg_decoder
from resnet_jax.data.sources.source import Example
from resnet_jax.errors import InputError, unknown

Interpolation = Literal["bilinear", "bicubic"]

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
"""How far a filter reaches, in pixels of the result (or of the image, where that is enlarged)."""


def check_interpolation(name: str) -> None:
    """Raises InputError unless there is such an interpolation."""
    if name not in get_args(Interpolation):
        raise unknown("interpolation", name, get_args(Interpolation))


def decode_crop(
    example: Example,
    place: Callable[[int, int], Box],
    out: UInt8[np.ndarray, "height width 3"],
    interpolation: Interpolation,
    *,
    exact: bool = False,
) -> bool:
    """Writes a part of an image, resampled.

    The filter averages over all the pixels that it leaves out, as Pillow's does. A JPEG that is
    much larger than wanted is decoded at a half, a quarter or an eighth of its size.

    Files are told by their content, not by their name. Of 16 bits the upper 8 are taken,
    transparency is dropped, of several frames the first is taken, and a camera's orientation is
    ignored: as the sets that weights were made with are read elsewhere.

    Args:
      example: The image, as pixels of one or three channels or as the bytes of a file.
      place: Returns which part, given the image's height and width.
      out: Where red, green and blue go.
      interpolation: The filter.
      exact: Whether JPEGs are decoded at their full size, whatever is wanted of them.

    Returns:
      Whether the image is grey; red, green and blue are then the same.

    Raises:
      InputError: The image cannot be decoded, is enormous, or has other channels.
    """
    try:
        plan = _Plan(example.key, place, out.shape[:2], interpolation, exact)
        grey = None
        if isinstance(example.image, bytes):
            grey = _decode_jpeg(example.image, plan, out, interpolation)
        return _decode(example, plan, out, interpolation) if grey is None else grey
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a broken file can raise anything in Pillow
        raise InputError(f"image {example.key} cannot be decoded: {error}") from error


class _Plan:
    """What is wanted of an image, once its size is known."""

    def __init__(
        self,
        key: str,
        place: Callable[[int, int], Box],
        shape: tuple[int, ...],
        interpolation: Interpolation,
        exact: bool,
    ) -> None:
        self._key = key
        self._place = place
        self._shape = shape
        self._support = _SUPPORT[interpolation]
        self._exact = exact

    def __call__(self, height: int, width: int, *, reducible: bool) -> tuple[int, Region, Box]:
        """Returns the reduction, the part of the reduced image that is needed, and the box in it.

        That part is all that the filter sees; so nothing else decides about the result.
        """
        if height * width > MOST_PIXELS:
            raise InputError(
                f"image {self._key} has {width} x {height} pixels; more than {MOST_PIXELS} are "
                "not decoded, because a small file can claim any number"
            )
        box = self._place(height, width)
        factor = _reduction(box, self._shape) if reducible and not self._exact else 1
        height, width = -(-height // factor), -(-width // factor)
        left, right, box_left, box_right = self._span(
            box.left / factor, box.right / factor, width, self._shape[1]
        )
        upper, lower, box_upper, box_lower = self._span(
            box.upper / factor, box.lower / factor, height, self._shape[0]
        )
        region = Region(left, upper, right, lower)
        return factor, region, Box(box_left, box_upper, box_right, box_lower)

    def _span(
        self, low: float, high: float, size: int, wanted: int
    ) -> tuple[int, int, float, float]:
        """Returns which pixels the filter sees, and where the span is among them."""
        reach = self._support * max(1.0, (high - low) / wanted)
        first = max(0, math.floor(low - reach) - 1)
        last = min(size, math.ceil(high + reach) + 1)
        return first, last, low - first, min(high, size) - first


def _reduction(box: Box, shape: tuple[int, ...]) -> int:
    """Returns by how much a JPEG's own scaling may reduce an image: 1, 2, 4 or 8.

    What is left has at least twice the pixels that are wanted in each direction; so the filter
    decides about the result, and not the scaling.
    """
    height, width = shape
    spare = min((box.lower - box.upper) / height, (box.right - box.left) / width)
    return next(factor for factor in (8, 4, 2, 1) if factor == 1 or spare >= 2 * factor)


@functools.cache
def _compiled_resample() -> Callable[..., None] | None:
    try:
        from resnet_jax.data.decoding.resample import resample
    except Exception:  # no numba; or no place for what it compiles, which can end in any error
        return None
    return resample


def _resample(
    image: Image.Image,
    box: Box,
    out: UInt8[np.ndarray, "height width 3"],
    interpolation: Interpolation,
) -> None:
    """Writes a box of an image, by Pillow.

    One axis after the other: which Pillow takes first differs between its versions, and with it
    the rounding.
    """
    height, width, _ = out.shape
    kind = _FILTERS[interpolation]
    rows = image.resize((width, image.height), kind, (box.left, 0, box.right, image.height))
    both = rows.resize((width, height), kind, (0, box.upper, width, box.lower))
    out[:] = np.atleast_3d(np.asarray(both))


def _decode_jpeg(
    file: bytes,
    plan: _Plan,
    out: UInt8[np.ndarray, "height width 3"],
    interpolation: Interpolation,
) -> bool | None:
    """Writes a part of a JPEG; returns whether it is grey, or None where Pillow has to judge."""
    decoder = jpeg_decoder()
    header = None if decoder is None else decoder.header(file)
    if decoder is None or header is None:
        return None
    factor, region, box = plan(header.height, header.width, reducible=True)
    pixels = decoder.decode(file, header, factor, region)
    if pixels is None:
        return None
    resample = _compiled_resample()
    if resample is None:
        _resample(Image.fromarray(pixels[..., :3]), box, out, interpolation)
    else:
        resample(pixels.view(np.uint32)[..., 0], *box, _SUPPORT[interpolation], out)
    return header.grey


def _decode(
    example: Example,
    plan: _Plan,
    out: UInt8[np.ndarray, "height width 3"],
    interpolation: Interpolation,
) -> bool:
    """Writes a part of any image, by Pillow; returns whether it is grey."""
    pixels = example.image
    if isinstance(pixels, np.ndarray):
        height, width, channels = pixels.shape
        if channels not in (1, 3):
            raise InputError(f"image {example.key} has {channels} channels; it has to have 1 or 3")
        _, region, box = plan(height, width, reducible=False)
        pixels = pixels[region.upper : region.lower, region.left : region.right]
        part = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    else:
        with open_image(pixels) as image:
            width, height = image.size
            factor, region, box = plan(height, width, reducible=image.format in JPEG)
            if factor > 1:
                image.draft(None, (width // factor, height // factor))
            part = in_colours(image.crop(region))
    _resample(part, box, out, interpolation)
    return part.mode == "L"
