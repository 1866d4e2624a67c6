"""Average pooling, and pooling into a given number of bins."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jaxtyping import Float


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
