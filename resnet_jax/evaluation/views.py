"""Views: which parts of an image a network sees, and at which size.

A view is a function of the image's height and width alone. Those of one shape go through the
network together, see `resnet_jax.evaluation.batches`.
"""

import dataclasses
import itertools
from typing import NamedTuple

from resnet_jax.data import Box, CentreCrop
from resnet_jax.errors import InputError

MULTIPLE = 32
"""Pixels: the longer side of a whole image is a multiple, so that few shapes are compiled."""

LONGEST_RATIO = 2
"""The longer side is at most this many times the shorter one, for the same reason."""

LARGEST_SCALE = 4096


class Placement(NamedTuple):
    """A rectangle of an image, and the height and width in pixels to which it is resampled."""

    box: Box
    height: int
    width: int


@dataclasses.dataclass(frozen=True)
class View:
    """A square crop of an image whose shorter side was resized, or nearly all of that image.

    The whole image is for fully convolutional networks: its longer side is cut at both ends to a
    multiple of 32 pixels (but not below the shorter one), and to at most twice the shorter side.

    Attributes:
      resize: Pixels of the image's shorter side.
      size: Height and width of the crop, in pixels; None for the whole image.
      row: Position of the crop among the rows of the resized image: from 0, the first, to 1, the
        last.
      column: Position among its columns.

    Raises:
      InputError: The crop is larger than the resized image, or that has no pixels or too many.
    """

    resize: int
    size: int | None = None
    row: float = 0.5
    column: float = 0.5

    def __post_init__(self) -> None:
        if self.size is not None:
            CentreCrop(self.size, self.resize)
        elif not 1 <= self.resize <= LARGEST_SCALE:
            raise InputError(f"a scale is 1 to {LARGEST_SCALE} pixels, and {self.resize} is not")

    def __call__(self, height: int, width: int) -> Placement:
        """Returns the placement in an image of this height and width, in pixels."""
        shorter = min(height, width)
        tall, wide = self.resize * height // shorter, self.resize * width // shorter
        rows, columns = self._cut(tall), self._cut(wide)
        # Halves to even, as torch.
        top, left = round(self.row * (tall - rows)), round(self.column * (wide - columns))
        box = Box(
            left=left * width / wide,
            upper=top * height / tall,
            right=min((left + columns) * width / wide, width),
            lower=min((top + rows) * height / tall, height),
        )
        return Placement(box, rows, columns)

    def _cut(self, length: int) -> int:
        if self.size is not None:
            return self.size
        return max(self.resize, min(length, LONGEST_RATIO * self.resize) // MULTIPLE * MULTIPLE)


def five_crops(size: int, resize: int) -> tuple[View, ...]:
    """Returns the centre and the four corners (Krizhevsky et al., NIPS 2012, section 4.1).

    The corners are those of the whole resized image, as in torchvision's `FiveCrop` and in
    fb.resnet.torch; with the mirror image of each they are the standard ten crops.

    Raises:
      InputError: The resized image is not larger than the crops, which would all be the same.
    """
    if resize == size:
        raise InputError(
            f"ten crops are taken of images that are larger than a crop, and images resized to "
            f"{resize} pixels have one crop of {size}; resize them to more, such as "
            f"{-(-size * 8 // 7)}"
        )
    corners = (View(resize, size, *corner) for corner in itertools.product((0, 1), repeat=2))
    return (View(resize, size), *corners)
