"""Average pooling, pooling into a given number of bins, and windows as they are."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jaxtyping import Float

from resnet_jax.errors import InputError


def average_pool(
    x: Float[Array, "n h w c"], size: int, stride: int, padding: str = "VALID"
) -> Float[Array, "n h2 w2 c"]:
    """Returns the means of square windows, to which the zeros of a padding count, as in Caffe.

    (Flax' own divides by an int of numpy's, which strict promotion of types does not allow.)

    Args:
      x: What is pooled.
      size: Side of a window.
      stride: Step between windows.
      padding: "VALID" or "SAME".
    """
    sums = nn.pooling.pool(x, 0.0, lax.add, (size, size), (stride, stride), padding)
    return sums / size**2


def adaptive_pool(
    x: Float[Array, "n h w c"], bins: int, reduce: Callable[..., Array] = jnp.mean
) -> Float[Array, "n bins bins c"]:
    """Pools `x` into `bins` x `bins` cells.

    Cell `i` of a side of length `s` begins at `floor(i * s / bins)` and ends before
    `ceil((i + 1) * s / bins)`, so that cells may overlap (He et al., arXiv 1406.4729, appendix A,
    and PyTorch's adaptive pooling). A side of length `bins` stays as it is.

    Args:
      x: What is pooled.
      bins: Cells of a side.
      reduce: `jnp.mean` or `jnp.max`.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        if size != bins:  # rows, then columns: neither reduction minds, and the slices are few
            edges = [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]
            cells = [
                reduce(lax.slice_in_dim(x, start, stop, axis=axis), axis=axis)
                for start, stop in edges
            ]
            x = jnp.stack(cells, axis=axis)
    return x


def windows(x: Float[Array, "n h w c"], size: int) -> Float[Array, "n h2 w2 d"]:
    """Returns every window of `size` x `size` pixels as a vector: its rows, columns and channels.

    A fully connected layer on these is a convolution of that size, with the parameters that it has
    on maps of that size.

    Raises:
      InputError: The maps are smaller than a window.
    """
    _, height, width, _ = x.shape
    if min(height, width) < size:
        raise InputError(
            f"the fully convolutional form needs images whose last maps are at least "
            f"{size}x{size}, and these are {height}x{width}; take larger images"
        )
    tall, wide = height - size + 1, width - size + 1
    shifted = [x[:, i : i + tall, j : j + wide] for i in range(size) for j in range(size)]
    return jnp.concatenate(shifted, axis=-1)
