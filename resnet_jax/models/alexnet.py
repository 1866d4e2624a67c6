"""AlexNet (Krizhevsky et al., NIPS 2012) and ZFNet (Zeiler, Fergus, arXiv 1311.2901)."""

import functools
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from resnet_jax.errors import InputError
from resnet_jax.models import checks
from resnet_jax.models.layers import (
    FixedSizeTop,
    HiddenLayers,
    Vectors,
    local_response_norm,
    normal,
)
from resnet_jax.models.lowering import Conv, Lowering, lowered, max_pool
from resnet_jax.models.variant import Variant

Form = Literal["paper", "torchvision"]


class AlexNet(FixedSizeTop):
    """Five convolutions, `conv1` to `conv5`, two hidden layers, `hidden`, and a linear `head`.

    On 227x227 pixels (the 224 of the paper do not give its 55x55) the maps have sides 55, 27, 13
    and 6. Those of images of other sizes are averaged into 6x6 cells, as in torchvision.

    Variants by name (`resnet_jax.create_model`):
      alexnet: the paper's, with two groups; 60,965,224 parameters, and 62,378,344 with `groups=1`.
      alexnet_torchvision: the form of torchvision, which is that of Krizhevsky's later paper
        (arXiv 1404.5997); 61,100,840 parameters, for 224 pixels.

    Attributes:
      num_classes: Number of logits.
      filters: Channels of the five convolutions.
      groups: Groups of `conv2`, `conv4` and `conv5`, 2 for the two GPUs of the paper.
      hidden_units: Units of each hidden layer.
      form: "paper": local response normalisation after `conv1` and `conv2`, dropout on the outputs
        of the hidden layers. "torchvision": no such normalisation, dropout on their inputs, and a
        border of 2 pixels around the image.
      dropout_rate: Share of those that is dropped in training.
      dtype: Type of the arithmetic; parameters, head and logits are float32.
      lowering: "plain", or "fast" on this platform (`resnet_jax.models.lowering`).

    Kernels start normally with deviation 0.01, biases at 1 in `conv2`, `conv4`, `conv5` and the
    hidden layers, and else at 0 (section 5 of the paper).

    Raises:
      InputError: A field has a wrong value, or images are too small.
    """

    num_classes: int = 1000
    filters: Sequence[int] = (96, 256, 384, 384, 256)
    groups: int = 2
    hidden_units: int = 4096
    form: Form = "paper"
    dropout_rate: float = 0.5
    dtype: Dtype = jnp.float32
    lowering: Lowering = "plain"

    def __post_init__(self) -> None:
        self.filters = tuple(self.filters)
        checks.one_of("form", self.form, get_args(Form))
        checks.length("filters", self.filters, 5)
        checks.at_least_one(self, "num_classes", "filters", "groups", "hidden_units")
        checks.share("dropout_rate", self.dropout_rate)
        if any(n % self.groups for n in self.filters):
            raise InputError(f"groups is {self.groups}; it must divide each of {self.filters}")
        checks.one_of("lowering", self.lowering, get_args(Lowering))
        super().__post_init__()

    @nn.compact
    @lowered
    def _forward(
        self, images: Float[Array, "n h w c"], vectors: Vectors, *, train: bool
    ) -> Float[Array, "*n num_classes"]:
        paper = self.form == "paper"
        checks.at_least_pixels("AlexNet", images, 67 if paper else 63)
        conv = functools.partial(_convolution, dtype=self.dtype)
        f1, f2, f3, f4, f5 = self.filters
        x = images.astype(self.dtype)
        x = nn.relu(conv(f1, 11, stride=4, padding=0 if paper else 2, name="conv1")(x))
        x = _pool(local_response_norm(x) if paper else x)
        x = nn.relu(conv(f2, 5, groups=self.groups, bias=1.0, name="conv2")(x))
        x = _pool(local_response_norm(x) if paper else x)
        x = nn.relu(conv(f3, 3, name="conv3")(x))
        x = nn.relu(conv(f4, 3, groups=self.groups, bias=1.0, name="conv4")(x))
        x = nn.relu(conv(f5, 3, groups=self.groups, bias=1.0, name="conv5")(x))
        x = vectors(_pool(x), 6)
        x = HiddenLayers(
            self.hidden_units,
            self.dropout_rate,
            dropout_on="outputs" if paper else "inputs",
            bias_init=nn.initializers.ones,
            dtype=self.dtype,
            name="hidden",
        )(x, train=train)
        init = normal(0.01)
        return nn.Dense(self.num_classes, kernel_init=init, name="head")(x.astype(jnp.float32))


class ZFNet(FixedSizeTop):
    """AlexNet with a first convolution of 7x7 and stride 2, and a second of stride 2.

    Five convolutions, `conv1` to `conv5`, two hidden layers, `hidden`, and a linear `head`. On
    224x224 pixels the maps have sides 110, 55, 26, 13 and 6 (figure 3 of the paper; its poolings
    round up). Those of images of other sizes are averaged into 6x6 cells.

    The paper says that maps are contrast normalised after the first two poolings, and not how:
    here it is AlexNet's local response normalisation.

    Variants by name (`resnet_jax.create_model`):
      zfnet: with AlexNet's numbers of filters; 62,357,608 parameters.
      zfnet_wide: 512, 1024 and 512 filters in the last three, of the paper's best network.

    The fields are AlexNet's. Kernels start normally with deviation 0.01, biases at 0 (section 3).

    Raises:
      InputError: A field has a wrong value, or images are too small.
    """

    num_classes: int = 1000
    filters: Sequence[int] = (96, 256, 384, 384, 256)
    hidden_units: int = 4096
    dropout_rate: float = 0.5
    dtype: Dtype = jnp.float32
    lowering: Lowering = "plain"

    def __post_init__(self) -> None:
        self.filters = tuple(self.filters)
        checks.length("filters", self.filters, 5)
        checks.at_least_one(self, "num_classes", "filters", "hidden_units")
        checks.share("dropout_rate", self.dropout_rate)
        checks.one_of("lowering", self.lowering, get_args(Lowering))
        super().__post_init__()

    @nn.compact
    @lowered
    def _forward(
        self, images: Float[Array, "n h w c"], vectors: Vectors, *, train: bool
    ) -> Float[Array, "*n num_classes"]:
        checks.at_least_pixels("ZFNet", images, 47)
        conv = functools.partial(_convolution, dtype=self.dtype)
        pool = functools.partial(_pool, padding=(0, 1))
        f1, f2, f3, f4, f5 = self.filters
        x = images.astype(self.dtype)
        x = nn.relu(conv(f1, 7, stride=2, padding=1, name="conv1")(x))
        x = local_response_norm(pool(x))
        x = nn.relu(conv(f2, 5, stride=2, padding=0, name="conv2")(x))
        x = local_response_norm(pool(x))
        x = nn.relu(conv(f3, 3, name="conv3")(x))
        x = nn.relu(conv(f4, 3, name="conv4")(x))
        x = nn.relu(conv(f5, 3, name="conv5")(x))
        x = vectors(pool(x), 6)
        x = HiddenLayers(self.hidden_units, self.dropout_rate, dtype=self.dtype, name="hidden")(
            x, train=train
        )
        init = normal(0.01)
        return nn.Dense(self.num_classes, kernel_init=init, name="head")(x.astype(jnp.float32))


def _convolution(
    filters: int,
    size: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    bias: float = 0.0,
    dtype: Dtype,
    name: str,
) -> nn.Conv:
    return Conv(
        filters,
        (size, size),
        strides=stride,
        padding=size // 2 if padding is None else padding,
        feature_group_count=groups,
        dtype=dtype,
        kernel_init=normal(0.01),
        bias_init=nn.initializers.constant(bias),
        name=name,
    )


def _pool(
    x: Float[Array, "n h w c"], padding: tuple[int, int] = (0, 0)
) -> Float[Array, "n h2 w2 c"]:
    return max_pool(x, (3, 3), strides=(2, 2), padding=(padding, padding))


VARIANTS: Mapping[str, Variant] = {
    "alexnet": Variant(AlexNet, fixed={"form": "paper"}, image_shape=(227, 227, 3)),
    "alexnet_torchvision": Variant(
        AlexNet, {"filters": (64, 192, 384, 256, 256), "groups": 1}, fixed={"form": "torchvision"}
    ),
    "zfnet": Variant(ZFNet),
    "zfnet_wide": Variant(ZFNet, {"filters": (96, 256, 512, 1024, 512)}),
}
