"""GoogLeNet (Szegedy et al., arXiv 1409.4842)."""

import functools
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from resnet_jax.errors import InputError
from resnet_jax.models import checks
from resnet_jax.models.layers import (
    ConvUnit,
    adaptive_pool,
    average_pool,
    local_response_norm,
)
from resnet_jax.models.lowering import Lowering, lowered, max_pool
from resnet_jax.models.normalization import GroupSize, batch_norm_of
from resnet_jax.models.variant import NO_BATCH_NORM, Variant

Form = Literal["paper", "torchvision"]

TABLE_1 = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Filters of the inception modules by name, see `Inception` (table 1 of the paper)."""

xavier = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
"""Caffe's form of Glorot & Bengio's initialiser."""


class Inception(nn.Module):
    """Four branches side by side, over the channels (figure 2b).

    Attributes:
      filters: Of the 1x1 convolution, the one before the 3x3, the 3x3, the one before the 5x5, the
        5x5, and the one behind the pooling.
      large: Side of the kernels of the "5x5" branch.
      unit: Makes a convolution: `unit(filters, size, name=...)`.
    """

    filters: tuple[int, ...]
    large: int
    unit: Callable[..., ConvUnit]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h w d"]:
        """Returns the branches' outputs, in the order of `filters`."""
        f1, f3_reduce, f3, f5_reduce, f5, f_pool = self.filters
        b1 = self.unit(f1, 1, name="conv1x1")(x, train=train)
        b3 = self.unit(f3_reduce, 1, name="conv3x3_reduce")(x, train=train)
        b3 = self.unit(f3, 3, name="conv3x3")(b3, train=train)
        b5 = self.unit(f5_reduce, 1, name="conv5x5_reduce")(x, train=train)
        b5 = self.unit(f5, self.large, name="conv5x5")(b5, train=train)
        pooled = max_pool(x, (3, 3), strides=(1, 1), padding="SAME")
        b_pool = self.unit(f_pool, 1, name="pool_proj")(pooled, train=train)
        return jnp.concatenate([b1, b3, b5, b_pool], axis=-1)


class AuxiliaryHead(nn.Module):
    """A classifier on the maps of a module half way: `conv`, `fc` and `head`.

    Its place in the collection `auxiliary_logits` is `auxiliary1/logits` or `auxiliary2/logits`.

    Attributes:
      filters: Of the 1x1 convolution.
      units: Of the hidden layer.
      form: How the maps become 4x4, see `GoogLeNet`.
      unit: Makes the convolution: `unit(filters, size, name=...)`.
    """

    num_classes: int
    filters: int
    units: int
    form: Form
    dropout_rate: float
    unit: Callable[..., ConvUnit]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> None:
        """Sows float32 logits of shape [n, num_classes] into `auxiliary_logits`.

        Raises:
          InputError: The maps are too small for the paper's pooling.
        """
        if self.form == "paper":
            if min(x.shape[1:3]) < 5:
                raise InputError(
                    "GoogLeNet's auxiliary heads need images of at least 79x79 pixels; "
                    "use auxiliary_heads=False for smaller ones"
                )
            x = average_pool(x, 5, 3)
        x = self.unit(self.filters, 1, name="conv")(adaptive_pool(x, 4), train=train)
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(self.units, dtype=self.dtype, kernel_init=xavier, name="fc")(x))
        deterministic = not train or self.is_initializing()
        x = nn.Dropout(self.dropout_rate, deterministic=deterministic, name="dropout")(x)
        head = nn.Dense(self.num_classes, kernel_init=xavier, name="head")
        logits = head(x.astype(jnp.float32))
        if not self.is_initializing():  # init returns parameters and statistics alone
            self.sow("auxiliary_logits", "logits", logits)


class GoogLeNet(nn.Module):
    """Two convolutions, nine inception modules, global average pooling and a linear head.

    Submodules are `conv1`, `conv2_reduce`, `conv2`, `inception3a` to `inception5b`, `auxiliary1`
    (after 4a), `auxiliary2` (after 4d) and `head`. In training the logits of the two auxiliary
    heads are sown into the collection `auxiliary_logits`; the paper adds their losses times 0.3.

    Variants by name (`resnet_jax.create_model`):
      googlenet: the paper's; 6,998,552 parameters and 6,379,728 in the auxiliary heads.
      googlenet_bn: torchvision's form; 6,624,904 and 6,379,984.

    Attributes:
      num_classes: Number of logits.
      width: Filters of `conv1`, a multiple of 8; all others are in proportion to the paper's 64.
      form: "paper": biases, and local response normalisation (with AlexNet's constants; the paper
        says only where it is). "torchvision": batch normalisation, 3x3 kernels in the "5x5"
        branches, a last max-pool of 2x2, and auxiliary heads that pool into 4x4 cells.
      auxiliary_heads: Whether the network has auxiliary heads.
      auxiliary_units: Units of their hidden layers.
      dropout_rate: Share of the head's inputs that is dropped in training.
      auxiliary_dropout_rate: The same in the auxiliary heads.
      dtype: Type of the arithmetic; parameters, statistics, heads and logits are float32.
      bn_momentum, bn_epsilon, bn_group_size, bn_axis_name: Fields of `BatchNorm`.
      lowering: "plain", or "fast" on this platform (`resnet_jax.models.lowering`).

    The paper leaves the initialisation open. Kernels start as in Caffe's replication (uniformly
    with variance 1 / fan-in) and biases of convolutions at 0.2; before batch normalisation kernels
    start as in He et al. 2015.

    Raises:
      InputError: A field has a wrong value, or images are too small.
    """

    num_classes: int = 1000
    width: int = 64
    form: Form = "paper"
    auxiliary_heads: bool = True
    auxiliary_units: int = 1024
    dropout_rate: float = 0.4
    auxiliary_dropout_rate: float = 0.7
    dtype: Dtype = jnp.float32
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    bn_group_size: GroupSize = None
    bn_axis_name: str | None = None
    lowering: Lowering = "plain"

    def __post_init__(self) -> None:
        checks.one_of("form", self.form, get_args(Form))
        checks.at_least_one(self, "num_classes", "width", "auxiliary_units")
        checks.multiple_of_8("width", self.width)
        checks.share("dropout_rate", self.dropout_rate)
        checks.share("auxiliary_dropout_rate", self.auxiliary_dropout_rate)
        checks.statistics_group(self.bn_group_size)
        checks.one_of("lowering", self.lowering, get_args(Lowering))
        super().__post_init__()

    @nn.compact
    @lowered
    def __call__(self, images: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n logits"]:
        """Returns float32 logits; `train` needs `rngs={"dropout": key}`."""
        checks.at_least_pixels("GoogLeNet", images, 31)
        paper = self.form == "paper"
        unit = functools.partial(ConvUnit, norm=batch_norm_of(self), dtype=self.dtype)
        if paper:
            bias_init = nn.initializers.constant(0.2)
            unit = functools.partial(unit, norm=None, kernel_init=xavier, bias_init=bias_init)
        x = unit(self.width, 7, stride=2, name="conv1")(images.astype(self.dtype), train=train)
        x = _pool(x)
        x = local_response_norm(x) if paper else x
        x = unit(self.width, 1, name="conv2_reduce")(x, train=train)
        x = unit(3 * self.width, 3, name="conv2")(x, train=train)
        x = _pool(local_response_norm(x) if paper else x)
        for name, filters in TABLE_1.items():
            filters = tuple(n * self.width // 64 for n in filters)
            large = 5 if paper else 3
            x = Inception(filters, large, unit, name=f"inception{name}")(x, train=train)
            training = train or self.is_initializing()
            if name in ("4a", "4d") and self.auxiliary_heads and training:
                AuxiliaryHead(
                    self.num_classes,
                    2 * self.width,
                    self.auxiliary_units,
                    self.form,
                    self.auxiliary_dropout_rate,
                    unit,
                    self.dtype,
                    name="auxiliary1" if name == "4a" else "auxiliary2",
                )(x, train=train)
            if name in ("3b", "4e"):
                x = _pool(x, 3 if paper or name == "3b" else 2)
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        deterministic = not train or self.is_initializing()
        x = nn.Dropout(self.dropout_rate, deterministic=deterministic, name="dropout")(x)
        return nn.Dense(self.num_classes, kernel_init=xavier, name="head")(x)

    def fully_convolutional(self, images: Float[Array, "n h w c"], *, train: bool) -> Array:
        """Returns the logits: global pooling is their mean over all positions."""
        return self(images, train=train)


def _pool(x: Float[Array, "n h w c"], size: int = 3) -> Float[Array, "n h2 w2 c"]:
    """Max-pools with stride 2, rounding the number of windows up as Caffe does."""
    height, width = ((0, 1 if size == 3 else side % 2) for side in x.shape[1:3])
    return max_pool(x, (size, size), strides=(2, 2), padding=(height, width))


VARIANTS: Mapping[str, Variant] = {
    "googlenet": Variant(GoogLeNet, fixed={"form": "paper", **NO_BATCH_NORM}),
    "googlenet_bn": Variant(
        GoogLeNet, {"dropout_rate": 0.2, "bn_epsilon": 1e-3}, fixed={"form": "torchvision"}
    ),
}
