"""Image files by Pillow: which formats are opened, and in which mode an image is taken."""

import io
import struct

import numpy as np
from PIL import Image, ImageFile

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Pillow reads more, which is unsafe for files of unknown origin: some formats start programs."""

JPEG = ("JPEG", "MPO")
"""Some cameras put several JPEGs into one file (MPO), the first of which is the photo."""

_GREY = ("1", "L", "LA")

MOST_PIXELS = 2**26
"""Of an image, which takes 200 MB in memory; a small file can claim any number."""


class UnknownFileError(ValueError):
    """A file has none of the formats that are read; the message lists them."""

    def __init__(self) -> None:
        super().__init__(f"it is no {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}")


def open_image(file: bytes) -> ImageFile.ImageFile:
    """Opens an image file by its content; nothing is decoded yet.

    The caller has to refuse more than `MOST_PIXELS`: unlike Pillow's own function this one does not
    warn of them.

    Args:
      file: The file's bytes.

    Raises:
      UnknownFileError: It has none of the formats that are read.
      Exception: Whatever a broken file raises in Pillow.
    """
    Image.init()
    for name in _FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(file[:16]) is True:
            try:
                return factory(io.BytesIO(file), "")
            except (SyntaxError, IndexError, TypeError, struct.error) as error:
                raise UnknownFileError from error
    raise UnknownFileError


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
