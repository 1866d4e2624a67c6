"""What is subtracted from images and what they are divided by, measured from the training set."""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.device import Statistics
from resnet_jax.data.images import ImageSet
from resnet_jax.errors import InputError, unknown

MeanOf = Literal["pixel", "channel", "none"]
StdOf = Literal["channel", "none"]

_CHUNK = 2**24
"""Pixel values read at a time: 16 MB, and 64 MB for their squares."""


def measure_statistics(
    images: ImageSet, mean: MeanOf, std: StdOf, *, most: int | None = None
) -> Statistics:
    """Measures a set of images, in their view for evaluation.

    Sums are of whole numbers, and so exact: the result does not depend on how the images are read.

    Args:
      images: The training images.
      mean: "pixel" for a mean image (the paper's), "channel" for one number a channel, "none" for
        zeros.
      std: "channel" for the standard deviation of each channel's values about the mean of the
        channel (whatever `mean` is), "none" for ones.
      most: How many examples are measured at most, evenly spaced over the set; by default all.

    Raises:
      InputError: There is no such mean or standard deviation, the set or what is measured of it is
        empty, or a channel is the same everywhere, so that nothing can be divided by its standard
        deviation.
    """
    if mean not in get_args(MeanOf):
        raise unknown("mean of images", mean, get_args(MeanOf))
    if std not in get_args(StdOf):
        raise unknown("standard deviation of images", std, get_args(StdOf))
    if most is not None and most < 1:
        raise InputError(f"statistics are measured on at least 1 example, and {most} is not")
    height, width, channels = images.image_shape
    means = np.zeros(channels)
    stds = np.ones(channels)
    if (mean, std) != ("none", "none"):
        examples = len(images) if most is None else min(most, len(images))
        sums, squares = _sums(images, examples, squared=std == "channel")
        per_channel = sums.sum(axis=(0, 1))
        count = examples * height * width
        if mean == "pixel":
            means = sums / examples
        elif mean == "channel":
            means = per_channel / count
        if std == "channel":
            stds = np.array(
                [_std(count, int(s), int(q)) for s, q in zip(per_channel, squares, strict=True)]
            )
    return Statistics(mean=means.astype(np.float32), std=stds.astype(np.float32))


def statistics_template(image_shape: tuple[int, int, int], *, mean: MeanOf) -> Statistics:
    """Returns the shapes and types of what `measure_statistics` returns, to restore it with.

    Args:
      image_shape: Height, width and channels of the images.
      mean: As it was measured.
    """
    channels = image_shape[2:]
    mean_shape = image_shape if mean == "pixel" else channels
    return jax.eval_shape(
        lambda: Statistics(
            mean=jnp.zeros(mean_shape, jnp.float32), std=jnp.zeros(channels, jnp.float32)
        )
    )


def _sums(images: ImageSet, examples: int, *, squared: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sum of each pixel, uint64 [h, w, c], and of each channel's squares, [c]."""
    if len(images) == 0:
        raise InputError("a data set without examples has no mean")
    sums = np.zeros(images.image_shape, np.uint64)
    squares = np.zeros(images.image_shape[2], np.uint64)
    chunk = max(1, _CHUNK // sums.size)
    for start in range(0, examples, chunk):
        numbers = np.arange(start, min(start + chunk, examples))
        pixels, _ = images.read(numbers * len(images) // examples)
        sums += pixels.sum(axis=0, dtype=np.uint64)
        if squared:
            squares += np.square(pixels, dtype=np.uint32).sum(axis=(0, 1, 2), dtype=np.uint64)
    return sums, squares


def _std(count: int, total: int, squares: int) -> float:
    # In Python's integers: the product does not fit into 64 bits.
    spread = count * squares - total**2
    if spread == 0:
        raise InputError(
            "a channel of the images is the same everywhere and cannot be divided by its standard "
            'deviation; take std "none"'
        )
    return math.sqrt(spread) / count
