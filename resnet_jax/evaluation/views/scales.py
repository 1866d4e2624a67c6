"""Whole images at a scale, for networks that are fully convolutional."""

import dataclasses

from resnet_jax.errors import InputError
from resnet_jax.evaluation.views.view import Placement, Resized

STEP = 32
"""Pixels: the longer side is a multiple, so that there are few shapes to compile for."""

MOST = 2
"""The longer side is at most this many times the shorter one, so that their number is bounded."""

_LONGEST = 4096


@dataclasses.dataclass(frozen=True)
class Scale:
    """An image whose shorter side was resized, nearly whole.

    Of the longer side as much is cut off at both ends as makes it a multiple of 32 pixels (but not
    the shorter one), and at most twice as long as the shorter side.

    Attributes:
      side: Pixels of the shorter side.

    Raises:
      InputError: The side has no pixels, or too many.
    """

    side: int

    def __post_init__(self) -> None:
        if not 1 <= self.side <= _LONGEST:
            raise InputError(f"a scale is 1 to {_LONGEST} pixels, and {self.side} is not")

    @property
    def shape(self) -> tuple[int, int] | None:
        """None: it depends on the image."""
        return None

    def __call__(self, height: int, width: int) -> Placement:
        """Returns the rectangle in the middle of the image."""
        image = Resized.to(self.side, height, width)
        tall, wide = self._cut(image.tall), self._cut(image.wide)
        top, left = round((image.tall - tall) / 2), round((image.wide - wide) / 2)
        return image.window(top, left, tall, wide)

    def _cut(self, side: int) -> int:
        return max(self.side, min(side, MOST * self.side) // STEP * STEP)
