"""PReLU networks (He, Zhang, Ren, Sun, arXiv 1502.01852)."""

from collections.abc import Mapping, Sequence
from typing import get_args

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from resnet_jax.models import checks
from resnet_jax.models.layers import HiddenLayers, adaptive_pool, normal
from resnet_jax.models.lowering import Conv, Lowering, lowered, max_pool
from resnet_jax.models.variant import Variant

SLOPE = 0.25
"""Where the slopes start (section 2.1 of the paper)."""

PYRAMID = (7, 3, 2, 1)
"""Bins of a side at each level of the pyramid (section 2.3)."""

he_normal_backward = nn.initializers.variance_scaling(2 / (1 + SLOPE**2), "fan_out", "normal")
"""Keeps the variance of gradients through parametric rectifiers: equation (14), which the paper
uses for these networks, with the factor of equation (15)."""


class PReLU(nn.Module):
    """A parametric ReLU, `max(0, x) + slope * min(0, x)`, with a slope for each channel.

    The paper does not decay the slopes: `optimizer.weight_decay_on` "kernels" leaves them alone.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Returns the activations."""
        init = nn.initializers.constant(SLOPE)
        slope = self.param("slope", init, x.shape[-1:], jnp.float32).astype(x.dtype)
        return jnp.where(x > 0, x, x * slope.reshape((1,) * (x.ndim - 1) + (-1,)))


class PReLUNet(nn.Module):
    """A 7x7 convolution, three stages of 3x3 convolutions, a pooling pyramid and hidden layers.

    Convolutions are `conv1`, `conv2_1`, ..., `conv4_6`, their rectifiers `prelu1`, `prelu2_1`, ...;
    then come two hidden layers, `hidden`, and a linear `head`. Each stage is preceded by a 2x2
    max-pool, and the last one followed by max-pooling into 7x7, 3x3, 2x2 and 1x1 bins, whatever the
    size of the images.

    Variants by name (`resnet_jax.create_model`):
      prelu_net_a: 19 layers; 178,032,072 parameters.
      prelu_net_b: 22 layers; 183,343,048 parameters.
      prelu_net_c: 22 layers, wider ones; 330,623,944 parameters.

    Attributes:
      num_classes: Number of logits.
      stage_sizes: Convolutions of each stage.
      filters: Their numbers of filters.
      stem_filters: Filters of `conv1`.
      hidden_units: Units of each hidden layer.
      dropout_rate: Share of the outputs of the hidden layers that is dropped in training.
      dtype: Type of the arithmetic; parameters, head and logits are float32.
      lowering: "plain", or "fast" on this platform (`resnet_jax.models.lowering`).

    Convolutions start by `he_normal_backward`, hidden layers normally with deviation 0.01 and the
    head with 0.001 (section 2.2), biases at 0. The paper leaves two things open. The padding of the
    convolutions here is the one that gives table 3's sizes, (size - 1) / 2 on every side; the
    pyramid's bins are those of He et al. 2014, see `adaptive_pool`, from the finest level on.

    Raises:
      InputError: A field has a wrong value, or images are too small.
    """

    num_classes: int = 1000
    stage_sizes: Sequence[int] = (5, 5, 5)
    filters: Sequence[int] = (256, 512, 512)
    stem_filters: int = 96
    hidden_units: int = 4096
    dropout_rate: float = 0.5
    dtype: Dtype = jnp.float32
    lowering: Lowering = "plain"

    def __post_init__(self) -> None:
        self.stage_sizes, self.filters = tuple(self.stage_sizes), tuple(self.filters)
        checks.length("filters", self.filters, len(self.stage_sizes))
        checks.at_least_one(
            self, "num_classes", "stage_sizes", "filters", "stem_filters", "hidden_units"
        )
        checks.share("dropout_rate", self.dropout_rate)
        checks.one_of("lowering", self.lowering, get_args(Lowering))
        super().__post_init__()

    @nn.compact
    @lowered
    def __call__(self, images: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n logits"]:
        """Returns float32 logits; `train` needs `rngs={"dropout": key}`."""
        checks.at_least_pixels("PReLU-net", images, 2 ** (len(self.stage_sizes) + 1) - 1)
        x = self._convolve(images.astype(self.dtype), self.stem_filters, "1", size=7, stride=2)
        for i, (convolutions, filters) in enumerate(
            zip(self.stage_sizes, self.filters, strict=True), 2
        ):
            x = max_pool(x, (2, 2), strides=(2, 2))
            for j in range(1, convolutions + 1):
                x = self._convolve(x, filters, f"{i}_{j}")
        levels = [adaptive_pool(x, bins, jnp.max).reshape(x.shape[0], -1) for bins in PYRAMID]
        x = HiddenLayers(
            self.hidden_units, self.dropout_rate, activation=PReLU, dtype=self.dtype, name="hidden"
        )(jnp.concatenate(levels, axis=-1), train=train)
        init = normal(0.001)
        return nn.Dense(self.num_classes, kernel_init=init, name="head")(x.astype(jnp.float32))

    def _convolve(
        self, x: Float[Array, "n h w c"], filters: int, name: str, size: int = 3, stride: int = 1
    ) -> Float[Array, "n h2 w2 d"]:
        x = Conv(
            filters,
            (size, size),
            strides=stride,
            padding=size // 2,
            dtype=self.dtype,
            kernel_init=he_normal_backward,
            name=f"conv{name}",
        )(x)
        return PReLU(name=f"prelu{name}")(x)


_B = {"stage_sizes": (6, 6, 6)}
VARIANTS: Mapping[str, Variant] = {
    "prelu_net_a": Variant(PReLUNet),
    "prelu_net_b": Variant(PReLUNet, _B),
    "prelu_net_c": Variant(PReLUNet, _B | {"filters": (384, 768, 896)}),
}
