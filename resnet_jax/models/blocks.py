"""The building blocks of residual networks: shortcuts, residual and bottleneck blocks."""

import functools
from collections.abc import Callable
from typing import Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from resnet_jax.errors import InputError, unknown
from resnet_jax.models.layers import he_normal
from resnet_jax.models.lowering import Conv
from resnet_jax.models.normalization import BatchNorm

ShortcutKind = Literal["A", "B", "C"]
StrideOn = Literal["1x1", "3x3"]


def convolution(
    filters: int,
    size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    dtype: Dtype = jnp.float32,
    name: str,
) -> nn.Conv:
    """Returns a square convolution without bias, padded so that stride 1 keeps the size.

    The padding is spelt out because XLA's "SAME" pads (2, 3) where a 7x7 of stride 2 should
    pad (3, 3), which is another network.
    """
    return Conv(
        filters,
        (size, size),
        strides=stride,
        padding=dilation * (size - 1) // 2,
        kernel_dilation=dilation,
        use_bias=False,
        dtype=dtype,
        kernel_init=he_normal,
        name=name,
    )


class Shortcut(nn.Module):
    """The branch around a block (section 3.3 and table 3 of the paper).

    Attributes:
      filters: Channels of the output.
      stride: Step with which it reads its input.
      kind: "A": identity, with zeros for the channels that are added. "B": a projection (1x1
        convolution and batch normalisation) where the shape changes, else identity. "C": a
        projection always.
      norm: Makes a normalisation layer: `norm(name=...)`.
      dtype: Type of the arithmetic.

    Raises:
      InputError: The kind is unknown, or it cannot give this number of channels.
    """

    filters: int
    stride: int = 1
    kind: ShortcutKind = "B"
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Dtype = jnp.float32

    def __post_init__(self) -> None:
        if self.kind not in get_args(ShortcutKind):
            raise unknown("shortcut", self.kind, get_args(ShortcutKind))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h2 w2 d"]:
        """Returns `x` in the shape of the block's output."""
        added = self.filters - x.shape[-1]
        if self.kind == "C" or (self.kind == "B" and (added or self.stride > 1)):
            x = convolution(self.filters, 1, stride=self.stride, dtype=self.dtype, name="conv")(x)
            return self.norm(name="bn")(x, train=train)
        if added < 0:
            raise InputError(
                f"shortcut A adds channels and cannot take {x.shape[-1]} down to {self.filters}; "
                "use B or C"
            )
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, added)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and the branch around them (figure 5, left).

    Attributes:
      filters: Channels of both convolutions, and of the output.
      stride: Stride of the first convolution.
      shortcut: Kind of the branch, see `Shortcut`; `None` makes the block a plain one.
      zero_init_residual: Start the last scale at zero, so that the block starts as its shortcut
        (Goyal et al., arXiv 1706.02677, section 5.1).
      stride_on: Ignored: this block has no 1x1 convolution, as `BottleneckBlock` has.
      dilation: Distance of the pixels that a 3x3 convolution reads.
      first_dilation: That of the first convolution, if it differs, see `ResNet.output_stride`.
      norm: Makes a normalisation layer: `norm(name=..., scale_init=...)`.
      dtype: Type of the arithmetic.
    """

    expansion = 1

    filters: int
    stride: int = 1
    shortcut: ShortcutKind | None = "B"
    zero_init_residual: bool = False
    stride_on: StrideOn = "1x1"
    dilation: int = 1
    first_dilation: int | None = None
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h2 w2 d"]:
        """Returns the block's output; `h2 = ceil(h / stride)`."""
        conv = functools.partial(convolution, self.filters, 3, dtype=self.dtype)
        first = self.first_dilation or self.dilation
        y = conv(stride=self.stride, dilation=first, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train=train))
        y = conv(dilation=self.dilation, name="conv2")(y)
        y = self.norm(name="bn2", scale_init=_last_scale(self.zero_init_residual))(y, train=train)
        return nn.relu(_add_shortcut(self, y, x, train=train))


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the branch around them (figure 5, right).

    The fields are those of `ResidualBlock`, but for these.

    Attributes:
      filters: Channels of the first two convolutions; the output has `expansion` times as many.
      stride_on: Which convolution has the stride: the first "1x1" (the paper, "v1") or the "3x3"
        (torchvision and others, "v1.5"), which alone then has `first_dilation`.

    Raises:
      InputError: `stride_on` is unknown.
    """

    expansion = 4

    filters: int
    stride: int = 1
    shortcut: ShortcutKind | None = "B"
    zero_init_residual: bool = False
    stride_on: StrideOn = "1x1"
    dilation: int = 1
    first_dilation: int | None = None
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Dtype = jnp.float32

    def __post_init__(self) -> None:
        if self.stride_on not in get_args(StrideOn):
            raise unknown("stride_on", self.stride_on, get_args(StrideOn))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h2 w2 d"]:
        """Returns the block's output; `h2 = ceil(h / stride)`, `d = 4 * filters`."""
        conv = functools.partial(convolution, dtype=self.dtype)
        first, second, dilation = self.stride, 1, self.dilation
        if self.stride_on == "3x3":
            first, second, dilation = 1, self.stride, self.first_dilation or self.dilation
        y = conv(self.filters, 1, stride=first, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train=train))
        y = conv(self.filters, 3, stride=second, dilation=dilation, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y, train=train))
        y = conv(self.filters * self.expansion, 1, name="conv3")(y)
        y = self.norm(name="bn3", scale_init=_last_scale(self.zero_init_residual))(y, train=train)
        return nn.relu(_add_shortcut(self, y, x, train=train))


def _last_scale(zero_init_residual: bool) -> nn.initializers.Initializer:
    return nn.initializers.zeros if zero_init_residual else nn.initializers.ones


def _add_shortcut(
    block: ResidualBlock | BottleneckBlock,
    y: Float[Array, "n h2 w2 d"],
    x: Float[Array, "n h w c"],
    *,
    train: bool,
) -> Float[Array, "n h2 w2 d"]:
    if block.shortcut is None:
        return y
    branch = Shortcut(
        filters=y.shape[-1],
        stride=block.stride,
        kind=block.shortcut,
        norm=block.norm,
        dtype=block.dtype,
        name="shortcut",
    )
    return y + branch(x, train=train)
