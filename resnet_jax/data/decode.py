"""From an image file to the pixels of a crop."""

import io
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from resnet_jax.data.crops import Box
from resnet_jax.data.source import Example
from resnet_jax.errors import InputError, unknown

Interpolation = Literal["bilinear", "bicubic"]

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

_MOST_PIXELS = 2**26
"""Of an image; it takes 200 MB in memory."""


def check_interpolation(name: str) -> None:
    """Raises InputError unless there is such an interpolation."""
    if name not in get_args(Interpolation):
        raise unknown("interpolation", name, get_args(Interpolation))


def decode_crop(
    example: Example,
    place: Callable[[int, int], Box],
    out: UInt8[np.ndarray, "height width 3"],
    interpolation: Interpolation,
) -> bool:
    """Writes a part of an image, resampled.

    The filter averages over all the pixels that it leaves out, as Pillow's does. A JPEG that is
    much larger than wanted is decoded at a half, a quarter or an eighth of its size.

    Args:
      example: The image, as pixels of one or three channels or as the bytes of a file.
      place: Returns which part, given the image's height and width.
      out: Where red, green and blue go.
      interpolation: The filter.

    Returns:
      Whether the image is grey; red, green and blue are then the same.

    Raises:
      InputError: The image cannot be decoded, is enormous, or has other channels.
    """
    try:
        with _open(example) as image:
            width, height = image.size
            box = place(height, width)
            factor = _reduction(box, out.shape)
            if factor > 1:
                drafted = image.draft(None, (width // factor, height // factor))
                if drafted is not None:  # it is a JPEG
                    box = _reduced(box, drafted[1][2] / width, image)
            grey = image.mode in ("1", "L")
            wanted = "L" if grey else "RGB"
            whole = image if image.mode == wanted else image.convert(wanted)
            pixels = whole.resize(out.shape[1::-1], _FILTERS[interpolation], box)
            out[:] = np.atleast_3d(np.asarray(pixels))
    except InputError:
        raise
    except Exception as error:  # a broken file can raise anything in Pillow
        raise InputError(f"image {example.key} cannot be decoded: {error}") from error
    return grey


def _open(example: Example) -> Image.Image:
    pixels = example.image
    if isinstance(pixels, np.ndarray):
        if pixels.shape[2] not in (1, 3):
            raise InputError(
                f"image {example.key} has {pixels.shape[2]} channels; it has to have 1 or 3"
            )
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image = Image.open(io.BytesIO(pixels))
    if image.width * image.height > _MOST_PIXELS:
        raise InputError(
            f"image {example.key} has {image.width} x {image.height} pixels; more than "
            f"{_MOST_PIXELS} are not decoded, because a small file can claim any number"
        )
    return image


def _reduction(box: Box, shape: tuple[int, ...]) -> int:
    """Returns by how much a JPEG's own scaling may reduce an image: 1, 2, 4 or 8.

    What is left has at least twice the pixels that are wanted in each direction; so the filter
    decides about the result, and not the scaling.
    """
    height, width, _ = shape
    spare = min((box.lower - box.upper) / height, (box.right - box.left) / width)
    return next(factor for factor in (8, 4, 2, 1) if factor == 1 or spare >= 2 * factor)


def _reduced(box: Box, scale: float, image: Image.Image) -> Box:
    right, lower = min(box.right * scale, image.width), min(box.lower * scale, image.height)
    return Box(box.left * scale, box.upper * scale, right, lower)
