"""The two fully connected layers with dropout that come before the head from AlexNet on."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float

DropoutOn = Literal["outputs", "inputs"]


class HiddenLayers(nn.Module):
    """`fc1` and `fc2`, each rectified, with dropout in training.

    Attributes:
      units: Units of each layer.
      dropout_rate: Share of the units that is dropped in training; the others are scaled up by
        `1 / (1 - dropout_rate)`, so that evaluation needs no factor. (Krizhevsky et al. and
        Caffe's first networks scale down in evaluation instead, which is the same network.)
      dropout_on: What is dropped: the "outputs" of both layers (the papers), or their "inputs"
        (torchvision's AlexNet).
      activation: Makes the activation, `activation(name=...)`; `None`: ReLU.
      kernel_init: Initialiser of the kernels.
      bias_init: Initialiser of the biases.
      dtype: Type of the arithmetic.
    """

    units: int = 4096
    dropout_rate: float = 0.5
    dropout_on: DropoutOn = "outputs"
    activation: Callable[..., nn.Module] | None = None
    kernel_init: Initializer = nn.initializers.normal(0.01)
    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"], *, train: bool) -> Float[Array, "*n units"]:
        """Returns the activations of `fc2`."""
        still = not train or self.is_initializing()  # init needs no key for dropout
        for i in (1, 2):
            drop = nn.Dropout(self.dropout_rate, deterministic=still, name=f"dropout{i}")
            x = drop(x) if self.dropout_on == "inputs" else x
            x = nn.Dense(
                self.units,
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                bias_init=self.bias_init,
                name=f"fc{i}",
            )(x)
            x = nn.relu(x) if self.activation is None else self.activation(name=f"act{i}")(x)
            x = drop(x) if self.dropout_on == "outputs" else x
        return x
