"""The arithmetic between a batch and the network, done on the device."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32


class Statistics(NamedTuple):
    """What was measured from the training images; a pytree, which is saved with a run.

    Attributes:
      mean: What is subtracted, in units of 0 to 255: one number a channel, or an image.
      std: What the difference is divided by, in the same units, one number a channel.
      color: What random colours are made of, in the same units: a component of colour in each
        column, of the size that a coefficient of 1 stands for. None where there are none.
    """

    mean: Float32[Array | np.ndarray, "c"] | Float32[Array | np.ndarray, "h w c"]
    std: Float32[Array | np.ndarray, "c"]
    color: Float32[Array | np.ndarray, "c c"] | None = None

    def arrays(self) -> dict[str, Array | np.ndarray]:
        """Returns those that there are, by name: the form in which checkpoints have them."""
        return {name: array for name, array in self._asdict().items() if array is not None}


def preprocess(
    batch: Mapping[str, Array], statistics: Statistics, *, padding: int
) -> Float32[Array, "n h w c"]:
    """Returns the images as the network takes them.

    The colour that the batch says is added to each image, the mean is subtracted and the difference
    divided by the standard deviation; then each image is mirrored, padded with zeros and cropped.
    So the padding stands for the mean, and crops are taken of the padded image or of its mirror
    image (section 4.2 of the paper).

    Args:
      batch: `image`, uint8 [n, h, w, c]; where colours are to be added, `color`, float32 [n, c],
        the coefficients of the components in the statistics; where images are to be mirrored,
        `flip`, bool [n]; where they are to be cropped, `crop_offset`, int32 [n, 2], row and
        column in 0 to `2 * padding`.
      statistics: What `measure_statistics` returned.
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
        images = images + _colors(batch["color"], statistics)[:, None, None]
    images = (images - mean) * scale
    if "flip" in batch:
        flip = batch["flip"].reshape(-1, 1, 1, 1)
        images = jnp.where(flip, images[:, :, ::-1], images)
    if "crop_offset" in batch:
        images = _pad_and_crop(images, batch["crop_offset"], padding)
    return images


def _colors(coefficients: Float32[Array, "n c"], statistics: Statistics) -> Float32[Array, "n c"]:
    if statistics.color is None:
        raise ValueError("there are colours in the batch, and no components in the statistics")
    # Not a product of matrices, which is not exact at a TPU's default precision.
    return jnp.sum(coefficients[:, None] * jnp.asarray(statistics.color)[None], axis=-1)


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
