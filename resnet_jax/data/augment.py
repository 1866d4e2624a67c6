"""How training images are varied."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from resnet_jax.data.crops import Crops, InceptionCrop, RandomCrop, ScaleJitter
from resnet_jax.data.draws import Draws
from resnet_jax.data.random_bits import Stream
from resnet_jax.errors import InputError, unknown


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is drawn for each training image.

    Attributes:
      crop: Which part of an image is read, for sets that are decoded as they are read; None is
        the view for evaluation.
      padding: Zeros put around what was read, in pixels, before a crop of its own size; 0 is no
        crop. The device does it, in `preprocess`.
      flip: Whether half of the images are mirrored, left to right; on the device too.
      color_std: Standard deviation of the coefficients with which the principal components of
        colour are added to an image, the same for all its pixels (Krizhevsky et al., NIPS 2012,
        section 4.1); 0 is no change of colour. On the device, too.
    """

    crop: RandomCrop | None = None
    padding: int = 0
    flip: bool = False
    color_std: float = 0.0

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise InputError(f"padding is 0 pixels or more, and {self.padding} is not")
        if not 0 <= self.color_std < math.inf:
            raise InputError(
                f"the standard deviation of coefficients of colour is 0 or more, and "
                f"{self.color_std} is not"
            )

    def crops(self, draws: Draws) -> Crops | None:
        """Returns which parts of the images of a batch are read, a box for each row of `draws`."""
        return None if self.crop is None else self.crop(draws)

    def __call__(self, draws: Draws) -> dict[str, np.ndarray]:
        """Returns the arrays that travel in the batch, one row for each row of `draws`.

        Returns:
          `crop_offset`, int32 [n, 2]: row and column of the crop's upper left corner in the padded
          image, each 0 to twice the padding; `flip`, bool [n]; `color`, float32 [n, 3], the
          coefficients of the components of colour. Each only where it is used.
        """
        arrays = {}
        if self.padding:
            arrays["crop_offset"] = draws.integers(Stream.CROP, 2 * self.padding + 1, per_example=2)
        if self.flip:
            arrays["flip"] = draws.integers(Stream.FLIP, 2)[:, 0] == 1
        if self.color_std:
            normals = draws.normals(Stream.COLOR, per_example=3)
            arrays["color"] = np.float32(self.color_std) * normals
        return arrays


_AUGMENTATIONS: Mapping[str, Callable[[int, int], Augmentation]] = {
    "none": lambda size, padding: Augmentation(),
    "pad_crop": lambda size, padding: Augmentation(padding=padding),
    "pad_crop_flip": lambda size, padding: Augmentation(padding=padding, flip=True),
    "random_crop": lambda size, padding: Augmentation(
        crop=ScaleJitter(size, shortest=round(256 * size / 224), longest=round(256 * size / 224)),
        flip=True,
    ),
    "scale_jitter": lambda size, padding: Augmentation(
        crop=ScaleJitter(size, shortest=round(256 * size / 224), longest=round(480 * size / 224)),
        flip=True,
    ),
    "inception_crop": lambda size, padding: Augmentation(crop=InceptionCrop(), flip=True),
}


def augmentation(
    name: str, *, image_size: int, padding: int = 4, color_std: float = 0.0
) -> Augmentation:
    """Returns the augmentation of this name.

    Args:
      name: "none"; "pad_crop", for what must not be mirrored; "pad_crop_flip", the paper's for
        CIFAR-10 (section 4.2); "random_crop", AlexNet's (crops of 224 pixels of images whose
        shorter side is 256, here in proportion to `image_size`); "scale_jitter", the paper's for
        ImageNet (section 3.4: the same, the shorter side drawn from 256 to 480); or
        "inception_crop", of random area and proportions. The last three mirror too.
      image_size: Height and width of the network's input, in pixels.
      padding: Pixels of padding on each side, for those that pad.
      color_std: See `Augmentation`; with any of them.

    Raises:
      InputError: There is no augmentation of this name, or a number is out of range.
    """
    if name not in _AUGMENTATIONS:
        raise unknown("augmentation", name, _AUGMENTATIONS)
    return dataclasses.replace(_AUGMENTATIONS[name](image_size, padding), color_std=color_std)
