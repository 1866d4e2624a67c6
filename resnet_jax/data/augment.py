"""Augmentation of training images: the draws on the host, and the arithmetic on the device.

A new augmentation that crops is a class in `crops.py` and a word in `_AUGMENTATIONS`. One that
changes pixels is a field of `Augmentation`, drawn in its `__call__`, and a function that
`preprocess` calls where the batch has the array; its draws take a new `Stream` in `draws.py`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32

from resnet_jax.data.crops import Crops, InceptionCrop, RandomCrop, ScaleJitter
from resnet_jax.data.draws import Draws, Stream
from resnet_jax.data.statistics import Statistics
from resnet_jax.errors import InputError, unknown


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The random changes of each training image.

    Attributes:
      crop: Part of an image that is decoded, for sets that are decoded as they are read; None is
        the view for evaluation.
      padding: Zeros around the decoded image, in pixels, before a crop of its own size; 0 is no
        crop. On the device.
      flip: Whether half of the images are mirrored, left to right. On the device.
      color_std: Standard deviation of the coefficients with which the principal components of
        colour are added to an image, the same for all its pixels (Krizhevsky et al., NIPS 2012,
        section 4.1); 0 is no change of colour. On the device.
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
        """Returns the boxes that are decoded of the images of a batch, by row of `draws`."""
        return None if self.crop is None else self.crop(draws)

    def __call__(self, draws: Draws) -> dict[str, np.ndarray]:
        """Returns the arrays that travel in the batch, those that are used, by row of `draws`.

        `crop_offset`, int32 [n, 2]: row and column of the crop's upper left corner in the padded
        image, each 0 to twice the padding; `flip`, bool [n]; `color`, float32 [n, 3], the
        coefficients of the components of colour.
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
      name: "none"; "pad_crop", for images that must not be mirrored; "pad_crop_flip", the paper's
        for CIFAR-10 (section 4.2); "random_crop", AlexNet's (crops of 224 pixels of images whose
        shorter side is 256, here in proportion to `image_size`); "scale_jitter", the paper's for
        ImageNet (section 3.4: the same, the shorter side drawn from 256 to 480); or
        "inception_crop", of random area and proportions. The last three mirror too.
      image_size: Height and width of the network's input, in pixels.
      padding: Pixels of padding on each side, for those that pad.
      color_std: As in `Augmentation`; with any of them.

    Raises:
      InputError: There is no augmentation of this name, or a number is out of range.
    """
    if name not in _AUGMENTATIONS:
        raise unknown("augmentation", name, _AUGMENTATIONS)
    return dataclasses.replace(_AUGMENTATIONS[name](image_size, padding), color_std=color_std)


def preprocess(
    batch: Mapping[str, Array], statistics: Statistics, *, padding: int
) -> Float32[Array, "n h w c"]:
    """Returns the images as the network takes them.

    Each image's colour is changed, the mean is subtracted and the difference divided by the
    standard deviation; then each image is mirrored, padded with zeros and cropped. So the padding
    stands for the mean, and crops are of the padded image or of its mirror image (section 4.2 of
    the paper).

    Args:
      batch: `image`, uint8 [n, h, w, c], and any of the arrays that `Augmentation` draws.
      statistics: The mean, the deviation and the components of colour.
      padding: Pixels of padding on each side, which `crop_offset` was drawn for.

    Raises:
      ValueError: The batch has colours, and the statistics have no components.
    """
    mean = jnp.asarray(statistics.mean)
    mean = mean.reshape((1,) * (4 - mean.ndim) + mean.shape)
    # Written out, because XLA makes a division by so few numbers a product only under jit.
    scale = (1 / jnp.asarray(statistics.std)).reshape(1, 1, 1, -1)
    images = batch["image"].astype(jnp.float32)
    if "color" in batch:
        if statistics.color is None:
            raise ValueError("there are colours in the batch, and no components in the statistics")
        # Not a product of matrices, which is not exact at a TPU's default precision.
        colors = jnp.sum(batch["color"][:, None] * jnp.asarray(statistics.color)[None], axis=-1)
        images = images + colors[:, None, None]
    images = (images - mean) * scale
    if "flip" in batch:
        images = jnp.where(batch["flip"].reshape(-1, 1, 1, 1), images[:, :, ::-1], images)
    if "crop_offset" in batch:
        images = _pad_and_crop(images, batch["crop_offset"], padding)
    return images


def _pad_and_crop(
    images: Float32[Array, "n h w c"], offsets: Int32[Array, "n 2"], padding: int
) -> Float32[Array, "n h w c"]:
    margin = (padding, padding)
    padded = jnp.pad(images, ((0, 0), margin, margin, (0, 0)))

    def crop(image: Float32[Array, "ph pw c"], offset: Int32[Array, "2"]) -> Array:
        return lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

    # One gather of whole windows. It moves numbers and so is exact everywhere, which a product
    # with one-hot matrices is not at a TPU's default precision; and it is the fastest on a CPU.
    return jax.vmap(crop)(padded, offsets)
