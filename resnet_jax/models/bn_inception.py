"""BN-Inception (Ioffe, Szegedy, arXiv 1502.03167, figure 5)."""

import functools
from collections.abc import Callable, Mapping
from typing import get_args

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from resnet_jax.models import checks
from resnet_jax.models.layers import ConvUnit, average_pool, he_normal
from resnet_jax.models.lowering import Conv, Lowering, lowered, max_pool
from resnet_jax.models.normalization import GroupSize, batch_norm_of
from resnet_jax.models.variant import Variant

FIGURE_5 = {
    "3a": ((64, 64, 64, 64, 96, 32), "avg"),
    "3b": ((64, 64, 96, 64, 96, 64), "avg"),
    "3c": ((0, 128, 160, 64, 96, 0), "max"),
    "4a": ((224, 64, 96, 96, 128, 128), "avg"),
    "4b": ((192, 96, 128, 96, 128, 128), "avg"),
    "4c": ((160, 128, 160, 128, 160, 128), "avg"),
    "4d": ((96, 128, 192, 160, 192, 128), "avg"),
    "4e": ((0, 128, 192, 192, 256, 0), "max"),
    "5a": ((352, 192, 320, 160, 224, 128), "avg"),
    "5b": ((352, 192, 320, 192, 224, 128), "max"),
}
"""The modules by name, see `BNInceptionModule`. Their branches add up to 608, 608 and 1056 channels
in 4c, 4d and 4e, where the figure's column of sizes says 576, 576 and 1024."""


class BNInceptionModule(nn.Module):
    """Branches side by side, over the channels: 1x1, 3x3, two 3x3 in a row, and pooling.

    Attributes:
      filters: Of the 1x1 convolution, the one before the 3x3, the 3x3, the one before the two 3x3,
        each of these, and the one behind the pooling. Without a first one (0) the module has
        stride 2; without a last one the pooled maps are passed through.
      pool: "avg" or "max".
      unit: Makes a convolution: `unit(filters, size, name=...)`.
    """

    filters: tuple[int, ...]
    pool: str
    unit: Callable[..., ConvUnit]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h2 w2 d"]:
        """Returns the branches' outputs, in the order of `filters`."""
        f1, f3_reduce, f3, double_reduce, double, f_pool = self.filters
        stride = 1 if f1 else 2
        b3 = self.unit(f3_reduce, 1, name="conv3x3_reduce")(x, train=train)
        b3 = self.unit(f3, 3, stride=stride, name="conv3x3")(b3, train=train)
        bd = self.unit(double_reduce, 1, name="double3x3_reduce")(x, train=train)
        bd = self.unit(double, 3, name="double3x3_1")(bd, train=train)
        bd = self.unit(double, 3, stride=stride, name="double3x3_2")(bd, train=train)
        if self.pool == "avg":
            bp = average_pool(x, 3, stride, "SAME")
        else:
            bp = max_pool(x, (3, 3), strides=(stride, stride), padding="SAME")
        if f_pool:
            bp = self.unit(f_pool, 1, name="pool_proj")(bp, train=train)
        branches = [b3, bd, bp]
        if f1:
            branches.insert(0, self.unit(f1, 1, name="conv1x1")(x, train=train))
        return jnp.concatenate(branches, axis=-1)


class BNInception(nn.Module):
    """GoogLeNet with batch normalisation, and with two 3x3 convolutions for each 5x5.

    Submodules are `conv1`, `conv2_reduce`, `conv2`, `inception3a` to `inception5b`, and `head`.
    Images may have any size.

    Variants by name (`resnet_jax.create_model`):
      bn_inception: the paper's; 11,278,528 parameters, and 11,285,224 with `separable_stem=False`.

    Attributes:
      num_classes: Number of logits.
      width: Filters of `conv1`, a multiple of 8; all others are in proportion to the paper's 64.
      separable_stem: The first convolution is a depthwise one, 8 filters of 7x7 for each channel of
        the image (`conv1_depthwise`), and a 1x1 one (the paper's "separable convolution with depth
        multiplier 8"). Reproductions of the network have a full 7x7 convolution there.
      dropout_rate: Share of the head's inputs that is dropped in training. The paper's accelerated
        networks have none.
      dtype: Type of the arithmetic; parameters, statistics, head and logits are float32.
      bn_momentum, bn_epsilon, bn_group_size, bn_axis_name: Fields of `BatchNorm`.
      lowering: "plain", or "fast" on this platform (`resnet_jax.models.lowering`).

    The figure has no auxiliary heads, and the paper does not say how kernels start: here as in He
    et al. 2015. Poolings round the number of windows up.

    Raises:
      InputError: A field has a wrong value.
    """

    num_classes: int = 1000
    width: int = 64
    separable_stem: bool = True
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    bn_group_size: GroupSize = None
    bn_axis_name: str | None = None
    lowering: Lowering = "plain"

    def __post_init__(self) -> None:
        checks.at_least_one(self, "num_classes", "width")
        checks.multiple_of_8("width", self.width)
        checks.share("dropout_rate", self.dropout_rate)
        checks.statistics_group(self.bn_group_size)
        checks.one_of("lowering", self.lowering, get_args(Lowering))
        super().__post_init__()

    @nn.compact
    @lowered
    def __call__(self, images: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n logits"]:
        """Returns float32 logits; `train` normalises by the batch and updates `batch_stats`."""
        unit = functools.partial(ConvUnit, norm=batch_norm_of(self), dtype=self.dtype)
        x = images.astype(self.dtype)
        if self.separable_stem:
            x = Conv(
                8 * x.shape[-1],
                (7, 7),
                strides=2,
                padding=3,
                feature_group_count=x.shape[-1],
                use_bias=False,
                dtype=self.dtype,
                kernel_init=he_normal,
                name="conv1_depthwise",
            )(x)
            x = unit(self.width, 1, name="conv1")(x, train=train)
        else:
            x = unit(self.width, 7, stride=2, name="conv1")(x, train=train)
        x = max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        x = unit(self.width, 1, name="conv2_reduce")(x, train=train)
        x = unit(3 * self.width, 3, name="conv2")(x, train=train)
        x = max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        for name, (filters, pool) in FIGURE_5.items():
            filters = tuple(n * self.width // 64 for n in filters)
            module = BNInceptionModule(filters, pool, unit, name=f"inception{name}")
            x = module(x, train=train)
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        deterministic = not train or self.is_initializing()
        x = nn.Dropout(self.dropout_rate, deterministic=deterministic, name="dropout")(x)
        return nn.Dense(self.num_classes, kernel_init=he_normal, name="head")(x)

    def fully_convolutional(self, images: Float[Array, "n h w c"], *, train: bool) -> Array:
        """Returns the logits: global pooling is their mean over all positions."""
        return self(images, train=train)


VARIANTS: Mapping[str, Variant] = {"bn_inception": Variant(BNInception)}
