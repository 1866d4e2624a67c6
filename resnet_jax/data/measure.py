"""What is subtracted from images and what they are divided by, measured from the training set."""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.colors import ColorOf, components, imagenet_components
from resnet_jax.data.device import Statistics
from resnet_jax.data.images import ImageSet
from resnet_jax.errors import InputError, unknown

MeanOf = Literal["pixel", "channel", "none"]
StdOf = Literal["channel", "none"]

_CHUNK = 2**24
"""Pixel values read at a time: 16 MB."""

_BLOCK = 2**18
"""Pixel values multiplied at a time: 2 MB, which the cache holds."""


def measure_statistics(
    images: ImageSet,
    mean: MeanOf,
    std: StdOf,
    *,
    color: ColorOf = "none",
    most: int | None = None,
) -> Statistics:
    """Measures a set of images, in their view for evaluation.

    Sums are of whole numbers, and so exact: the result does not depend on how the images are read.

    Args:
      images: The training images.
      mean: "pixel" for a mean image (the paper's), "channel" for one number a channel, "none" for
        zeros.
      std: "channel" for the standard deviation of each channel's values about the mean of the
        channel (whatever `mean` is), "none" for ones.
      color: "pca" for the principal components of these images' colours, "pca_imagenet" for the
        known ones of ImageNet, which are not measured, "none" for no components; see
        `resnet_jax.data.colors`.
      most: How many examples are measured at most, evenly spaced over the set; by default all.

    Raises:
      InputError: There is no such mean, standard deviation or kind of colours, the set or what is
        measured of it is empty, a channel is the same everywhere, so that nothing can be divided
        by its standard deviation, or grey images are to have colours.
    """
    _check(mean, std, color, most)
    height, width, channels = images.image_shape
    _check_channels(color, channels)
    means = np.zeros(channels)
    stds = np.ones(channels)
    colors = imagenet_components() if color == "pca_imagenet" else None
    if (mean, std) != ("none", "none") or color == "pca":
        examples = len(images) if most is None else min(most, len(images))
        sums, products = _sums(images, examples, products=std == "channel" or color == "pca")
        per_channel = sums.sum(axis=(0, 1))
        count = examples * height * width
        if mean == "pixel":
            means = sums / examples
        elif mean == "channel":
            means = per_channel / count
        spread = _spread(count, per_channel, products)
        if std == "channel":
            stds = np.array([_std(count, of_channel) for of_channel in spread.diagonal()])
        if color == "pca":
            colors = components((spread / count**2).astype(np.float64))
    return Statistics(
        mean=means.astype(np.float32),
        std=stds.astype(np.float32),
        color=None if colors is None else colors.astype(np.float32),
    )


def statistics_template(
    image_shape: tuple[int, int, int], *, mean: MeanOf, color: ColorOf = "none"
) -> Statistics:
    """Returns the shapes and types of what `measure_statistics` returns, to restore it with.

    Args:
      image_shape: Height, width and channels of the images.
      mean: As it was measured.
      color: As it was measured.
    """
    channels = image_shape[2:]
    mean_shape = image_shape if mean == "pixel" else channels
    return jax.eval_shape(
        lambda: Statistics(
            mean=jnp.zeros(mean_shape, jnp.float32),
            std=jnp.zeros(channels, jnp.float32),
            color=None if color == "none" else jnp.zeros(channels * 2, jnp.float32),
        )
    )


def _check(mean: str, std: str, color: str, most: int | None) -> None:
    if mean not in get_args(MeanOf):
        raise unknown("mean of images", mean, get_args(MeanOf))
    if std not in get_args(StdOf):
        raise unknown("standard deviation of images", std, get_args(StdOf))
    if color not in get_args(ColorOf):
        raise unknown("kind of random colours", color, get_args(ColorOf))
    if most is not None and most < 1:
        raise InputError(f"statistics are measured on at least 1 example, and {most} is not")


def _check_channels(color: ColorOf, channels: int) -> None:
    if color != "none" and channels != 3:
        raise InputError(
            f"colours are varied in images with red, green and blue, and these have {channels} "
            'channel; set data.color to "none"'
        )


def _sums(images: ImageSet, examples: int, *, products: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sum of each pixel, uint64 [h, w, c], and of channels' products, [c, c]."""
    if len(images) == 0:
        raise InputError("a data set without examples has no mean")
    channels = images.image_shape[2]
    sums = np.zeros(images.image_shape, np.uint64)
    of_products = np.zeros((channels, channels), np.uint64)
    chunk = max(1, _CHUNK // sums.size)
    for start in range(0, examples, chunk):
        numbers = np.arange(start, min(start + chunk, examples))
        pixels, _ = images.read(numbers * len(images) // examples)
        sums += pixels.sum(axis=0, dtype=np.uint64)
        if products:
            of_products += _products(pixels.reshape(-1, channels))
    return sums, of_products


def _products(pixels: np.ndarray) -> np.ndarray:
    block = _BLOCK // pixels.shape[1]
    total = np.zeros((pixels.shape[1],) * 2)
    for start in range(0, len(pixels), block):
        # Exact, for it never gets near 2**53.
        some = pixels[start : start + block].astype(np.float64)
        total += some.T @ some
    return total.astype(np.uint64)


def _spread(count: int, sums: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Returns the covariance of the channels times the square of the count, exactly.

    It is of Python's integers: they would not fit into 64 bits.
    """
    sums, products = sums.astype(object), products.astype(object)
    return count * products - np.outer(sums, sums)


def _std(count: int, spread: int) -> float:
    if spread == 0:
        raise InputError(
            "a channel of the images is the same everywhere and cannot be divided by its standard "
            'deviation; take std "none"'
        )
    return math.sqrt(spread) / count
