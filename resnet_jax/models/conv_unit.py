"""A convolution, its bias or batch normalisation, and its rectification."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float

from resnet_jax.models.blocks import he_normal


class ConvUnit(nn.Module):
    """What inception modules are made of: `conv`, `bn` where there is one, and ReLU.

    Attributes:
      filters: Channels of the output.
      size: Side of the kernel; `(size - 1) / 2` zeros are put on every side of the input.
      stride: Stride.
      norm: Makes a normalisation layer, `norm(name=...)`, in place of a bias; `None`: a bias.
      kernel_init: Initialiser of the kernel.
      bias_init: Initialiser of the bias.
      dtype: Type of the arithmetic.
    """

    filters: int
    size: int = 1
    stride: int = 1
    norm: Callable[..., nn.Module] | None = None
    kernel_init: Initializer = he_normal
    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h2 w2 d"]:
        """Returns the activations; `h2 = ceil(h / stride)`."""
        x = nn.Conv(
            self.filters,
            (self.size, self.size),
            strides=self.stride,
            padding=(self.size - 1) // 2,
            use_bias=self.norm is None,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            name="conv",
        )(x)
        return nn.relu(x if self.norm is None else self.norm(name="bn")(x, train=train))
