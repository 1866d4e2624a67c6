"""How training images are varied."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from resnet_jax.data.draws import Draws
from resnet_jax.data.random_bits import Stream
from resnet_jax.errors import InputError, unknown


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is drawn for each training image; `preprocess` does the arithmetic on the device.

    Attributes:
      padding: Zeros put around the image, in pixels, before a crop of the image's own size; 0 is
        no crop.
      flip: Whether half of the images are mirrored, left to right.
    """

    padding: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise InputError(f"padding is 0 pixels or more, and {self.padding} is not")

    def __call__(self, draws: Draws) -> dict[str, np.ndarray]:
        """Returns the arrays that travel in the batch, one row for each row of `draws`.

        Returns:
          `crop_offset`, int32 [n, 2]: row and column of the crop's upper left corner in the padded
          image, each 0 to twice the padding; `flip`, bool [n]. Each only where it is used.
        """
        arrays = {}
        if self.padding:
            arrays["crop_offset"] = draws.integers(Stream.CROP, 2 * self.padding + 1, per_example=2)
        if self.flip:
            arrays["flip"] = draws.integers(Stream.FLIP, 2)[:, 0] == 1
        return arrays


_AUGMENTATIONS: Mapping[str, Callable[[int], Augmentation]] = {
    "none": lambda padding: Augmentation(),
    "pad_crop": lambda padding: Augmentation(padding=padding),
    "pad_crop_flip": lambda padding: Augmentation(padding=padding, flip=True),
}


def augmentation(name: str, *, padding: int = 4) -> Augmentation:
    """Returns the augmentation of this name.

    Args:
      name: "none"; "pad_crop", for what must not be mirrored; or "pad_crop_flip", the paper's for
        CIFAR-10 (section 4.2).
      padding: Pixels of padding on each side, for those that crop.

    Raises:
      InputError: There is no augmentation of this name, or the padding is negative.
    """
    if name not in _AUGMENTATIONS:
        raise unknown("augmentation", name, _AUGMENTATIONS)
    return _AUGMENTATIONS[name](padding)
