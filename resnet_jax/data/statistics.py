"""Statistics of the training images: mean, standard deviation, principal components of colour.

Krizhevsky et al. (NIPS 2012, section 4.1) add to all pixels of an image the eigenvectors of the
covariance of red, green and blue over the training set, each times its eigenvalue times a random
coefficient. They do not give the unit; of pixels from 0 to 255 the eigenvalues are thousands, and
so pixels from 0 to 1 are taken, as fb.resnet.torch does.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt64

from resnet_jax.data.images import ImageSet
from resnet_jax.errors import InputError, unknown

MeanOf = Literal["pixel", "channel", "none"]
StdOf = Literal["channel", "none"]
ColorOf = Literal["none", "pca", "pca_imagenet"]

_Sums: TypeAlias = UInt64[np.ndarray, "sums"]

_CHUNK = 2**24
"""Pixel values read at a time: 16 MB."""

_BLOCK = 2**18
"""Pixel values multiplied at a time: 2 MB, which fit into the cache."""

_WHITE = 255.0

_IMAGENET_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])  # of pixels from 0 to 1
_IMAGENET_EIGENVECTORS = np.array(
    [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ]
)
IMAGENET_COMPONENTS = _WHITE * _IMAGENET_EIGENVALUES * _IMAGENET_EIGENVECTORS
"""A component in each column, as fb.resnet.torch measured them on some of the training images."""


class Statistics(NamedTuple):
    """Statistics of the training images; a pytree, which is saved with a run.

    Attributes:
      mean: Subtracted from pixels of 0 to 255: one number a channel, or an image.
      std: Divides the difference; in the same units, one number a channel.
      color: Principal components of colour in the same units, one in each column, of the size that
        a coefficient of 1 stands for. None where colours are not varied.
    """

    mean: Float32[Array | np.ndarray, "c"] | Float32[Array | np.ndarray, "h w c"]
    std: Float32[Array | np.ndarray, "c"]
    color: Float32[Array | np.ndarray, "c c"] | None = None

    def arrays(self) -> dict[str, Array | np.ndarray]:
        """Returns the arrays that are not None, by name, as checkpoints have them."""
        return {name: array for name, array in self._asdict().items() if array is not None}


def measure_statistics(
    images: ImageSet,
    mean: MeanOf,
    std: StdOf,
    *,
    color: ColorOf = "none",
    most: int | None = None,
    total: Callable[[int, Callable[[range], _Sums]], _Sums] = lambda count, of: of(range(count)),
) -> Statistics:
    """Measures a set of images, in their view for evaluation.

    Sums are of whole numbers, and so exact: the result does not depend on how the images are read,
    nor on how many processes share them.

    Args:
      images: The training images.
      mean: "pixel" for a mean image (the paper's), "channel" for one number a channel, or "none".
      std: "channel" for the standard deviation of each channel's values about the mean of the
        channel (whatever `mean` is), or "none".
      color: "pca" for the principal components of these images' colours, "pca_imagenet" for the
        published ones of ImageNet, or "none".
      most: How many examples are measured at most, evenly spaced over the set; by default all.
      total: Adds up, from the number of examples, the sums of the ranges that make them up; such as
        `parallel.total`.

    Raises:
      InputError: A name is unknown, there are no examples, a channel is the same everywhere, or
        grey images are to have colours.
    """
    for kind, name, known in (
        ("mean of images", mean, MeanOf),
        ("standard deviation of images", std, StdOf),
        ("kind of random colours", color, ColorOf),
    ):
        if name not in get_args(known):
            raise unknown(kind, name, get_args(known))
    height, width, channels = images.image_shape
    if color != "none" and channels != 3:
        raise InputError(
            f"colours are varied in images with red, green and blue, and these have {channels} "
            'channel; set data.color to "none"'
        )
    means = np.zeros(channels)
    stds = np.ones(channels)
    colors = IMAGENET_COMPONENTS if color == "pca_imagenet" else None
    if (mean, std) != ("none", "none") or color == "pca":
        examples = len(images) if most is None else min(most, len(images))
        if examples < 1:
            raise InputError(f"statistics are measured on at least 1 example, not on {examples}")
        with_products = std == "channel" or color == "pca"
        everything = total(
            examples, lambda share: _sums(images, examples, share, products=with_products)
        )
        sums, products = np.split(everything, [math.prod(images.image_shape)])
        sums, products = sums.reshape(images.image_shape), products.reshape(channels, channels)
        per_channel = sums.sum(axis=(0, 1))
        count = examples * height * width
        if mean == "pixel":
            means = sums / examples
        elif mean == "channel":
            means = per_channel / count
        # The covariance times the square of the count, in Python's integers: exact, and too large
        # for 64 bits.
        per_channel, products = per_channel.astype(object), products.astype(object)
        spread = count * products - np.outer(per_channel, per_channel)
        if std == "channel":
            if not all(spread.diagonal()):
                raise InputError(
                    "a channel of the images is the same everywhere and cannot be divided by its "
                    'standard deviation; take std "none"'
                )
            stds = np.array([math.sqrt(of_channel) / count for of_channel in spread.diagonal()])
        if color == "pca":
            colors = _components((spread / count**2).astype(np.float64))
    return Statistics(
        mean=means.astype(np.float32),
        std=stds.astype(np.float32),
        color=None if colors is None else colors.astype(np.float32),
    )


def statistics_template(
    image_shape: tuple[int, int, int], *, mean: MeanOf, color: ColorOf = "none"
) -> Statistics:
    """Returns the shapes and types of the result of `measure_statistics`, to restore it with."""
    channels = image_shape[2:]
    mean_shape = image_shape if mean == "pixel" else channels
    return jax.eval_shape(
        lambda: Statistics(
            mean=jnp.zeros(mean_shape, jnp.float32),
            std=jnp.zeros(channels, jnp.float32),
            color=None if color == "none" else jnp.zeros(channels * 2, jnp.float32),
        )
    )


def _sums(images: ImageSet, examples: int, share: range, *, products: bool) -> _Sums:
    """Returns the sum of each pixel, [h, w, c], and of the channels' products, [c, c], flattened.

    They are of a share of so many examples, which are spaced evenly over the images.
    """
    channels = images.image_shape[2]
    sums = np.zeros(images.image_shape, np.uint64)
    of_products = np.zeros((channels, channels), np.uint64)
    chunk = max(1, _CHUNK // sums.size)
    for start in share[::chunk]:
        numbers = np.arange(start, min(start + chunk, share.stop))
        pixels, _ = images.read(numbers * len(images) // examples)
        sums += pixels.sum(axis=0, dtype=np.uint64)
        if products:
            for block in np.array_split(pixels.reshape(-1, channels), -(-pixels.size // _BLOCK)):
                values = block.astype(np.float64)
                of_products += (values.T @ values).astype(np.uint64)  # exact, far below 2**53
    return np.concatenate([sums.ravel(), of_products.ravel()])


def _components(covariance: Float[np.ndarray, "c c"]) -> Float[np.ndarray, "c c"]:
    """Returns the principal components of colours, of their covariance in pixels of 0 to 255.

    A component in each column, the one with the most variance first: the eigenvector, whose largest
    entry is positive, times the eigenvalue of pixels from 0 to 1, times 255.
    """
    eigenvalues, eigenvectors = np.linalg.eigh(covariance / _WHITE**2)
    # Of colours that vary in fewer directions some are zero, and rounding makes them negative.
    eigenvalues = np.maximum(eigenvalues[::-1], 0)
    eigenvectors = eigenvectors[:, ::-1]
    largest = np.abs(eigenvectors).argmax(axis=0)
    signs = np.sign(eigenvectors[largest, np.arange(len(eigenvectors))])
    return _WHITE * eigenvalues * signs * eigenvectors
