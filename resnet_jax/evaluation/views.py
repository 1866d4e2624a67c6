"""Views: which parts of an image a network sees, and at which size.

A view is a function of the image's height and width alone. Those of one shape go through the
network together, see `resnet_jax.evaluation.batches`.
"""

import dataclasses
import itertools
from typing import Literal, NamedTuple

from resnet_jax.data import Box, CentreCrop
from resnet_jax.errors import InputError

Position = Literal["first", "centre", "last"]

MULTIPLE = 32
"""Pixels: the longer side of a `Scale` is a multiple, so that there are few shapes to compile."""

LONGEST_RATIO = 2
"""The longer side of a `Scale` is at most this many times the shorter one, for the same reason."""

LARGEST_SCALE = 4096


class Placement(NamedTuple):
    """A rectangle of an image, and the size to which it is resampled.

    Attributes:
      box: The rectangle, in the image's pixels.
      height: Height of the view, in pixels.
      width: Width of the view, in pixels.
    """

    box: Box
    height: int
    width: int


@dataclasses.dataclass(frozen=True)
class Crop:
    """A square of an image whose shorter side was resized: its centre, an edge or a corner.

    The centre is the view of the evaluations during training.

    Attributes:
      size: Height and width of the crop, in pixels.
      resize: Pixels of the image's shorter side before it.
      row: Position of the crop among the rows of the resized image.
      column: Position among its columns.

    Raises:
      InputError: The crop is larger than the resized image.
    """

    size: int
    resize: int
    row: Position = "centre"
    column: Position = "centre"

    def __post_init__(self) -> None:
        CentreCrop(self.size, self.resize)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the crop."""
        return self.size, self.size

    def __call__(self, height: int, width: int) -> Placement:
        """Returns the placement in an image of this height and width, in pixels."""
        tall, wide = _resized(self.resize, height, width)
        corner = _offset(self.row, tall - self.size), _offset(self.column, wide - self.size)
        return _window((height, width), (tall, wide), corner, (self.size, self.size))


@dataclasses.dataclass(frozen=True)
class Scale:
    """An image whose shorter side was resized, nearly whole, for fully convolutional networks.

    The longer side is cut at both ends to a multiple of 32 pixels (but not below the shorter one),
    and to at most twice the shorter side.

    Attributes:
      side: Pixels of the shorter side.

    Raises:
      InputError: The side has no pixels, or too many.
    """

    side: int

    def __post_init__(self) -> None:
        if not 1 <= self.side <= LARGEST_SCALE:
            raise InputError(f"a scale is 1 to {LARGEST_SCALE} pixels, and {self.side} is not")

    @property
    def shape(self) -> None:
        """None: the shape depends on the image."""
        return None

    def __call__(self, height: int, width: int) -> Placement:
        """Returns the placement in an image of this height and width, in pixels."""
        tall, wide = _resized(self.side, height, width)
        rows, columns = self._cut(tall), self._cut(wide)
        corner = _offset("centre", tall - rows), _offset("centre", wide - columns)
        return _window((height, width), (tall, wide), corner, (rows, columns))

    def _cut(self, length: int) -> int:
        return max(self.side, min(length, LONGEST_RATIO * self.side) // MULTIPLE * MULTIPLE)


View = Crop | Scale


def five_crops(size: int, resize: int) -> tuple[Crop, ...]:
    """Returns the centre and the four corners (Krizhevsky et al., NIPS 2012, section 4.1).

    The corners are those of the whole resized image, as in torchvision's `FiveCrop` and in
    fb.resnet.torch; with the mirror image of each they are the standard ten crops.

    Args:
      size: Height and width of the crops, in pixels.
      resize: Pixels of the image's shorter side before them.

    Raises:
      InputError: The image is not larger than the crops, which would all be the same.
    """
    if resize == size:
        raise InputError(
            f"ten crops are taken of images that are larger than a crop, and images resized to "
            f"{resize} pixels have one crop of {size}; resize them to more, such as "
            f"{-(-size * 8 // 7)}"
        )
    ends: tuple[Position, ...] = ("first", "last")
    corners = (Crop(size, resize, *corner) for corner in itertools.product(ends, repeat=2))
    return (Crop(size, resize), *corners)


def _offset(position: Position, spare: int) -> int:
    """Returns where a part begins that leaves `spare` pixels over; halves to even, as torch."""
    return {"first": 0, "centre": round(spare / 2), "last": spare}[position]


def _resized(side: int, height: int, width: int) -> tuple[int, int]:
    """Returns height and width once the shorter is `side`; the longer one is rounded down."""
    shorter = min(height, width)
    return side * height // shorter, side * width // shorter


def _window(
    image: tuple[int, int],
    resized: tuple[int, int],
    corner: tuple[int, int],
    shape: tuple[int, int],
) -> Placement:
    """Returns the placement of a part with this corner and shape, in pixels after resizing."""
    (height, width), (tall, wide) = image, resized
    (top, left), (rows, columns) = corner, shape
    box = Box(
        left=left * width / wide,
        upper=top * height / tall,
        right=min((left + columns) * width / wide, width),
        lower=min((top + rows) * height / tall, height),
    )
    return Placement(box, rows, columns)
