"""Crops of images, as boxes: geometry alone, without pixels."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple, Self, TypeAlias

import numpy as np
from jaxtyping import Int32

from resnet_jax.data.draws import Draws, Stream
from resnet_jax.errors import InputError

_ONE = 2**31
"""Random numbers are whole, and fractions of this."""

_TRIES = 10

_MULTIPLE = 32
"""Pixels: the longer side of a whole image is a multiple, so that few shapes are compiled."""

_LONGEST_RATIO = 2
"""The longer side is at most this many times the shorter one, for the same reason."""

_LARGEST = 4096  # pixels of the shorter side of a whole image


class Box(NamedTuple):
    """A rectangle of an image, in its pixels, which is resampled to the network's input."""

    left: float
    upper: float
    right: float
    lower: float

    @classmethod
    def in_resized(
        cls,
        image: tuple[int, int],
        resized: tuple[int, int],
        corner: tuple[int, int],
        shape: tuple[int, int],
    ) -> Self:
        """Returns the box of an image that becomes a rectangle of the resized image.

        All are pixels down and across; `corner` and `shape` are those of the rectangle.
        """
        (height, width), (tall, wide), (top, left), (rows, columns) = image, resized, corner, shape
        return cls(
            left=left * width / wide,
            upper=top * height / tall,
            right=min((left + columns) * width / wide, width),
            lower=min((top + rows) * height / tall, height),
        )


Crops: TypeAlias = Callable[[int, int, int], Box]
"""The boxes of the images of a batch: from an image's row, and its height and width in pixels."""

RandomCrop: TypeAlias = Callable[[Draws], Crops]
"""A way to draw boxes: each is a function of the draws of its row and the size of its image."""


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
        if self.size is None:
            if not 1 <= self.resize <= _LARGEST:
                raise InputError(f"a scale is 1 to {_LARGEST} pixels, and {self.resize} is not")
        elif self.size < 1:
            raise InputError(f"an image size is at least 1 pixel, and {self.size} is not")
        elif self.resize < self.size:
            raise InputError(f"images resized to {self.resize} pixels have no crop of {self.size}")

    def __call__(self, height: int, width: int) -> Placement:
        """Returns the placement in an image of this height and width, in pixels."""
        tall, wide = _resized(height, width, self.resize)
        rows, columns = self._cut(tall), self._cut(wide)
        # Halves to even, as in torchvision, whose weights are evaluated.
        top, left = round(self.row * (tall - rows)), round(self.column * (wide - columns))
        box = Box.in_resized((height, width), (tall, wide), (top, left), (rows, columns))
        return Placement(box, rows, columns)

    def _cut(self, length: int) -> int:
        if self.size is not None:
            return self.size
        return max(self.resize, min(length, _LONGEST_RATIO * self.resize) // _MULTIPLE * _MULTIPLE)


@dataclasses.dataclass(frozen=True)
class ScaleJitter:
    """The paper's crops (section 3.4): of a fixed size, of images of random size.

    The shorter side is a whole number of pixels, each equally likely, and so is each position of
    the crop.

    Attributes:
      size: Height and width of the crop, in pixels.
      shortest: The least number of pixels of the image's shorter side.
      longest: The greatest.
    """

    size: int
    shortest: int
    longest: int

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.shortest <= self.longest:
            raise InputError(
                f"images whose shorter side is from {self.shortest} to {self.longest} pixels have "
                f"no crops of {self.size}"
            )

    def __call__(self, draws: Draws) -> Crops:
        """Returns the boxes of the images of a batch."""
        numbers = draws.integers(Stream.BOX, _ONE, per_example=3).tolist()
        shape = self.size, self.size

        def crop(row: int, height: int, width: int) -> Box:
            side_draw, top_draw, left_draw = numbers[row]
            side = self.shortest + _below(side_draw, self.longest - self.shortest + 1)
            tall, wide = _resized(height, width, side)
            top = _below(top_draw, tall - self.size + 1)
            left = _below(left_draw, wide - self.size + 1)
            return Box.in_resized((height, width), (tall, wide), (top, left), shape)

        return crop


@dataclasses.dataclass(frozen=True)
class InceptionCrop:
    """Crops of random area and proportions (Szegedy et al., arXiv 1409.4842, section 6).

    As torchvision and timm have it: area and proportions are drawn up to ten times until the crop
    fits into the image; then it is the centre, with the proportions brought into their range.

    Attributes:
      area: Least and greatest share of the image's area; uniformly distributed.
      aspect: Least and greatest ratio of width to height; its logarithm is uniformly distributed.
    """

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, draws: Draws) -> Crops:
        """Returns the boxes of the images of a batch."""
        per_example = 2 * _TRIES + 2
        numbers = draws.integers(Stream.BOX, _ONE, per_example=per_example)
        return lambda row, height, width: self._crop(numbers[row], height, width)

    def _crop(self, numbers: Int32[np.ndarray, "draws"], height: int, width: int) -> Box:
        *tries, top_draw, left_draw = numbers.tolist()
        for area_draw, aspect_draw in zip(tries[::2], tries[1::2], strict=True):
            area = height * width * _between(area_draw, *self.area)
            aspect = math.exp(_between(aspect_draw, *map(math.log, self.aspect)))
            wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < wide <= width and 0 < tall <= height:
                top = _below(top_draw, height - tall + 1)
                left = _below(left_draw, width - wide + 1)
                return Box(left, top, left + wide, top + tall)
        narrowest, widest = self.aspect
        wide = min(width, max(1, round(height * widest)))
        tall = min(height, max(1, round(width / narrowest)))
        top, left = (height - tall) // 2, (width - wide) // 2
        return Box(left, top, left + wide, top + tall)


def _resized(height: int, width: int, side: int) -> tuple[int, int]:
    """Returns height and width after resizing the shorter one, the longer one rounded down."""
    shorter = min(height, width)
    return side * height // shorter, side * width // shorter


def _below(draw: int, bound: int) -> int:
    return draw * bound // _ONE


def _between(draw: int, least: float, greatest: float) -> float:
    return least + (greatest - least) * (draw / _ONE)
