"""The stored form of an image: checked, and on request made smaller."""

import io

import numpy as np
from PIL import Image

from resnet_jax.data.decoding.decode import JPEG, MOST_PIXELS, in_colours, open_image
from resnet_jax.data.sources import Example
from resnet_jax.errors import InputError

_ORIENTATION = 0x0112  # tag of EXIF


def shrink(example: Example, shorter_side: int | None, quality: int) -> bytes:
    """Returns an image as the bytes of a JPEG or PNG file, at most of a size.

    A JPEG or PNG that is small enough is returned as it is, byte for byte. A larger image is
    resampled with Lanczos' filter, which averages, and becomes a JPEG; so does a JPEG in CMYK,
    because some readers of JPEG cannot decode it. Pixels become a PNG, and so does a file of
    another format. Of EXIF only the orientation is kept.

    Raises:
      InputError: It cannot be decoded to its end, or is enormous; the message says so of "it".
    """
    if isinstance(example.image, np.ndarray):
        return _encoded(_resized(open_image(example.image), shorter_side), "PNG")
    try:
        with open_image(example.image) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(
                    f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS}"
                )
            image.load()
            small = shorter_side is None or min(image.size) <= shorter_side
            if small and image.format in (*JPEG, "PNG") and image.mode != "CMYK":
                return example.image
            if small and image.format not in JPEG:
                return _encoded(in_colours(image), "PNG")
            orientation, exif = image.getexif().get(_ORIENTATION), Image.Exif()
            if orientation is not None:
                exif[_ORIENTATION] = orientation
            smaller = _resized(in_colours(image), shorter_side)
            return _encoded(smaller, "JPEG", quality=quality, exif=exif)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a broken file can raise anything in Pillow
        raise InputError(f"it cannot be decoded: {error}") from error


def _resized(image: Image.Image, shorter_side: int | None) -> Image.Image:
    shorter = min(image.size)
    if shorter_side is None or shorter <= shorter_side:
        return image
    width, height = (max(1, round(side * shorter_side / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
