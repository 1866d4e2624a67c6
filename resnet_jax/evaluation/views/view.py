"""What a view of an image is."""

from typing import NamedTuple, Protocol

from resnet_jax.data import Box


class Placement(NamedTuple):
    """A rectangle of an image, and the size at which it is seen.

    Attributes:
      box: The rectangle, in the image's pixels.
      height: Of what is made of it, in pixels.
      width: The same.
    """

    box: Box
    height: int
    width: int


class View(Protocol):
    """One of the ways in which an image is shown to a network, a function of its size alone."""

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of what is seen; None where they depend on the image."""
        ...

    def __call__(self, height: int, width: int) -> Placement:
        """Returns which part of an image is seen.

        Args:
          height: The image's height in pixels.
          width: The image's width in pixels.
        """
        ...


class Resized(NamedTuple):
    """An image whose shorter side was resized, and of which windows are taken.

    Attributes:
      height: Of the image as it is, in pixels.
      width: The same.
      tall: Its height after resizing.
      wide: Its width after resizing; what is longer is rounded down.
    """

    height: int
    width: int
    tall: int
    wide: int

    @classmethod
    def to(cls, side: int, height: int, width: int) -> "Resized":
        """Resizes the shorter side of an image to `side` pixels."""
        shorter = min(height, width)
        return cls(height, width, side * height // shorter, side * width // shorter)

    def window(self, top: int, left: int, tall: int, wide: int) -> Placement:
        """Returns the window with this corner and of this size, in pixels after resizing."""
        down, across = self.height / self.tall, self.width / self.wide
        box = Box(
            left=left * across,
            upper=top * down,
            right=min((left + wide) * across, self.width),
            lower=min((top + tall) * down, self.height),
        )
        return Placement(box, tall, wide)
