"""Crops of one size: the centre, and the corners."""

import dataclasses
import itertools
from typing import Literal

from resnet_jax.data import CentreCrop
from resnet_jax.errors import InputError
from resnet_jax.evaluation.views.view import Placement, Resized

End = Literal["first", "last"]


@dataclasses.dataclass(frozen=True)
class Centre:
    """The centre of an image whose shorter side was resized: the view of evaluation in training.

    Attributes:
      size: Height and width of the crop, in pixels.
      resize: Pixels of the image's shorter side before it.

    Raises:
      InputError: The crop is larger than the image.
    """

    size: int
    resize: int

    def __post_init__(self) -> None:
        CentreCrop(self.size, self.resize)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the crop."""
        return self.size, self.size

    def __call__(self, height: int, width: int) -> Placement:
        """Returns the crop."""
        box = CentreCrop(self.size, self.resize)(0, height, width)
        return Placement(box, self.size, self.size)


@dataclasses.dataclass(frozen=True)
class Corner:
    """A corner of an image whose shorter side was resized.

    Attributes:
      size: Height and width of the crop, in pixels.
      resize: Pixels of the image's shorter side before it; at least `size`.
      row: Whether the crop has the first rows or the last.
      column: Whether it has the first columns or the last.
    """

    size: int
    resize: int
    row: End
    column: End

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the crop."""
        return self.size, self.size

    def __call__(self, height: int, width: int) -> Placement:
        """Returns the crop."""
        image = Resized.to(self.resize, height, width)
        top = image.tall - self.size if self.row == "last" else 0
        left = image.wide - self.size if self.column == "last" else 0
        return image.window(top, left, self.size, self.size)


def five_crops(size: int, resize: int) -> tuple[Centre | Corner, ...]:
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
    ends: tuple[End, ...] = ("first", "last")
    corners = (Corner(size, resize, *end) for end in itertools.product(ends, repeat=2))
    return (Centre(size, resize), *corners)
