"""Local response normalisation."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def local_response_norm(
    x: Float[Array, "n h w c"],
    *,
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
) -> Float[Array, "n h w c"]:
    """Returns `x / (k + alpha * sum(x^2))^beta`, with the sum over `size` channels around each.

    The formula and the constants are those of Krizhevsky et al. (NIPS 2012, section 3.3). Caffe
    and PyTorch divide `alpha` by `size`, and have `k = 1` unless told otherwise: what they call
    `alpha=1e-4` is `alpha=1e-4 / 5` here. Channels are neighbours across the groups of a
    convolution, too.

    Args:
      x: Activations, usually after their rectification.
      size: Number of channels in a sum, odd; less at the first and last channels.
      k: What the sum is added to.
      alpha: Factor of the sum.
      beta: Exponent.
    """
    channels = x.shape[-1]
    squares = lax.square(x.astype(jnp.float32))  # bfloat16 would round all but `k` away
    padded = jnp.pad(squares, ((0, 0), (0, 0), (0, 0), (size // 2, size // 2)))
    total = sum(padded[..., i : i + channels] for i in range(size))
    return x * jnp.power(k + alpha * total, -beta).astype(x.dtype)
