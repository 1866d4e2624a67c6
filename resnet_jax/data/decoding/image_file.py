"""Image files of strangers, by Pillow: which are opened, and in which mode they are taken."""

import io
import struct

import numpy as np
from PIL import Image, ImageFile

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""What else Pillow can read is not for strangers' files; some of it starts other programs."""

JPEG = ("JPEG", "MPO")
"""Formats: some cameras put several JPEGs into one file, the first of which is the photo."""

_GREY = ("1", "L", "LA")

MOST_PIXELS = 2**26
"""Of an image, which takes 200 MB in memory; a small file can claim any number."""


class UnknownFileError(ValueError):
    """The bytes are of no kind that is read; the message says of which."""

    def __init__(self) -> None:
        super().__init__(f"it is no {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}")


def open_image(file: bytes) -> ImageFile.ImageFile:
    """Opens an image file, which is told by its content; nothing is decoded yet.

    Pillow's own function warns of many pixels in words of its own; whoever calls this compares them
    with `MOST_PIXELS`, and refuses.

    Args:
      file: The file's bytes.

    Raises:
      UnknownFileError: It is none that is read.
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
    """Returns an image in the mode L, if it is grey, or RGB.

    Of 16 bits the upper 8 are taken, and transparency is dropped.
    """
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P":
        # By way of transparency, or Pillow warns of that of some palettes.
        image = image.convert("RGBA")
    wanted = "L" if image.mode in _GREY else "RGB"
    return image if image.mode == wanted else image.convert(wanted)
