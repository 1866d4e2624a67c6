"""From an image file to the pixels of a crop."""

import functools
import io
import math
import struct
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from resnet_jax.data.crops import Box
from resnet_jax.data.decoding.jpeg import Region, jpeg_decoder
from resnet_jax.data.sources import Example
from resnet_jax.errors import InputError, unknown

Interpolation = Literal["bilinear", "bicubic"]

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Pillow reads more, which is unsafe for files of unknown origin: some formats start programs."""

_UNKNOWN_FORMAT = f"it is not a {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}"

JPEG = ("JPEG", "MPO")
"""Some cameras put several JPEGs into one file (MPO), the first of which is the photo."""

_GREY = ("1", "L", "LA")

MOST_PIXELS = 2**26
"""Of an image, which takes 200 MB in memory; a small file can claim any number."""

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
"""Reach of a filter, in pixels of the result (or of the image, where that is enlarged)."""

_Plan: TypeAlias = Callable[[int, int, bool], tuple[int, Region, Box]]
"""From height, width, and whether the decoder can reduce, to what `_plan` returns."""


def check_interpolation(name: str) -> None:
    """Raises InputError unless there is such an interpolation."""
    if name not in get_args(Interpolation):
        raise unknown("interpolation", name, get_args(Interpolation))


def decode_crop(
    example: Example,
    crop: Callable[[int, int], Box],
    out: UInt8[np.ndarray, "height width 3"],
    interpolation: Interpolation,
    *,
    exact: bool = False,
) -> bool:
    """Writes a part of an image, resampled.

    The filter averages over what it leaves out, as Pillow's does. A JPEG that is
    much larger than wanted is decoded at a half, a quarter or an eighth of its size.

    The format of a file is found from its content, not from its name. Of 16 bits the upper 8 are
    taken, transparency is dropped, of several frames the first is taken, and a camera's orientation
    is ignored: as in the pipelines that published weights were trained with.

    Args:
      example: The image, as pixels of one or three channels or as the bytes of a file.
      crop: Returns the part's box, given the image's height and width.
      out: Takes red, green and blue.
      interpolation: The filter.
      exact: Whether JPEGs are decoded at their full size, however small the result is.

    Returns:
      Whether the image is grey; red, green and blue are then the same.

    Raises:
      InputError: The image cannot be decoded, is enormous, or has other channels.
    """
    plan = functools.partial(_plan, crop, out.shape[:2], _SUPPORT[interpolation], exact)
    try:
        if isinstance(example.image, bytes):
            grey = _decode_jpeg(example.image, plan, out, interpolation)
            if grey is not None:
                return grey
        with open_image(example.image) as image:
            width, height = image.size
            factor, region, box = plan(height, width, image.format in JPEG)
            if factor > 1:
                image.draft(None, (width // factor, height // factor))
            part = in_colours(image.crop(region))
        _resample(part, box, out, interpolation)
    except MemoryError:
        raise
    except InputError as error:
        raise InputError(f"image {example.key} {error}") from error
    except Exception as error:  # a broken file can raise anything in Pillow
        raise InputError(f"image {example.key} cannot be decoded: {error}") from error
    return part.mode == "L"


def _plan(
    crop: Callable[[int, int], Box],
    shape: tuple[int, int],
    support: float,
    exact: bool,
    height: int,
    width: int,
    reducible: bool,
) -> tuple[int, Region, Box]:
    """Returns the reduction of a JPEG, the region of the reduced image, and the box in that.

    The region is all that the filter reaches, so pixels outside it do not matter.
    """
    if height * width > MOST_PIXELS:
        raise InputError(
            f"has {width} x {height} pixels; more than {MOST_PIXELS} are not decoded, because a "
            "small file can claim any number"
        )
    box = crop(height, width)
    factor = _reduction(box, shape) if reducible and not exact else 1

    def span(low: float, high: float, size: int, wanted: int) -> tuple[int, int, float, float]:
        low, high, size = low / factor, high / factor, -(-size // factor)
        reach = support * max(1.0, (high - low) / wanted)
        first = max(0, math.floor(low - reach) - 1)
        last = min(size, math.ceil(high + reach) + 1)
        return first, last, low - first, min(high, size) - first

    left, right, box_left, box_right = span(box.left, box.right, width, shape[1])
    upper, lower, box_upper, box_lower = span(box.upper, box.lower, height, shape[0])
    return factor, Region(left, upper, right, lower), Box(box_left, box_upper, box_right, box_lower)


def _reduction(box: Box, shape: tuple[int, int]) -> int:
    """Returns the factor by which a JPEG is reduced as it is decoded: 1, 2, 4 or 8.

    At least twice the pixels that are wanted remain in each direction, so that the filter decides
    about the result, and not the reduction.
    """
    height, width = shape
    spare = min((box.lower - box.upper) / height, (box.right - box.left) / width)
    return next(factor for factor in (8, 4, 2, 1) if factor == 1 or spare >= 2 * factor)


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
    factor, region, box = plan(header.height, header.width, True)
    pixels = decoder.decode(file, header, factor, region)
    if pixels is None:
        return None
    resample = _compiled_resample()
    if resample is not None:
        resample(pixels.view(np.uint32)[..., 0], *box, _SUPPORT[interpolation], out)
    else:
        # Pillow keeps 4 bytes a pixel, too: whole rows are copied, in a sixth of the time that it
        # takes to copy every three bytes of four.
        pixels = np.ascontiguousarray(pixels)
        size = pixels.shape[1], pixels.shape[0]
        part = Image.frombytes("RGB", size, pixels, "raw", "RGBX", 0, 1)
        _resample(part, box, out, interpolation)
    return header.grey


@functools.cache
def _compiled_resample() -> Callable[..., None] | None:
    try:
        from resnet_jax.data.decoding.resample import resample
    except Exception:  # without numba, or a folder for its cache, which can end in any error
        return None
    return resample


def _resample(
    image: Image.Image,
    box: Box,
    out: UInt8[np.ndarray, "height width 3"],
    interpolation: Interpolation,
) -> None:
    """Writes a box of an image, by Pillow.

    One axis after the other: Pillow's versions differ in which is first, and so in the rounding.
    """
    height, width, _ = out.shape
    kind = _FILTERS[interpolation]
    rows = image.resize((width, image.height), kind, (box.left, 0, box.right, image.height))
    both = rows.resize((width, height), kind, (0, box.upper, width, box.lower))
    out[:] = np.atleast_3d(np.asarray(both))


def open_image(image: bytes | UInt8[np.ndarray, "h w c"]) -> Image.Image:
    """Opens pixels, or an image file by its content; of a file nothing is decoded yet.

    The caller has to refuse more than `MOST_PIXELS`: unlike Pillow's own function this one does not
    warn of them.

    Raises:
      ValueError: It has none of the formats that are read, or another number of channels.
      Exception: Whatever a broken file raises in Pillow.
    """
    if isinstance(image, np.ndarray):
        channels = image.shape[2]
        if channels not in (1, 3):
            raise InputError(f"has {channels} channels; it must have 1 or 3")
        return Image.fromarray(image[..., 0] if channels == 1 else image)
    Image.init()
    for name in _FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(image[:16]) is True:
            try:
                return factory(io.BytesIO(image), "")
            except (SyntaxError, IndexError, TypeError, struct.error) as error:
                raise ValueError(_UNKNOWN_FORMAT) from error
    raise ValueError(_UNKNOWN_FORMAT)


def in_colours(image: Image.Image) -> Image.Image:
    """Returns an image in mode L if it is grey, else in RGB.

    Of 16 bits the upper 8 are taken, and transparency is dropped.
    """
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P":
        # By way of transparency, or Pillow warns of that of some palettes.
        image = image.convert("RGBA")
    wanted = "L" if image.mode in _GREY else "RGB"
    return image if image.mode == wanted else image.convert(wanted)
