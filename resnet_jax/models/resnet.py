"""Residual networks and their plain counterparts (He et al., arXiv 1512.03385)."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from resnet_jax.errors import InputError
from resnet_jax.models import checks
from resnet_jax.models.blocks import (
    BottleneckBlock,
    ResidualBlock,
    ShortcutKind,
    StrideOn,
    convolution,
)
from resnet_jax.models.layers import normal
from resnet_jax.models.lowering import Lowering, lowered, max_pool
from resnet_jax.models.normalization import BatchNorm, GroupSize, batch_norm_of
from resnet_jax.models.variant import Variant

StemKind = Literal["imagenet", "cifar"]


class Stem(nn.Module):
    """The layers before the first stage; their output is sown as `intermediates/stem/output`.

    Attributes:
      filters: Channels of the convolution.
      kind: "imagenet": a 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2. "cifar": a
        3x3 convolution.
      pool_padding: Rows (and columns) of padding before and after in the max-pool.
      norm: Makes a normalisation layer: `norm(name=...)`.
      dtype: Type of the arithmetic.
    """

    filters: int
    kind: StemKind = "imagenet"
    pool_padding: tuple[int, int] = (0, 1)
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h2 w2 d"]:
        """Returns the input of the first stage."""
        size, stride = (7, 2) if self.kind == "imagenet" else (3, 1)
        x = convolution(self.filters, size, stride=stride, dtype=self.dtype, name="conv")(x)
        x = nn.relu(self.norm(name="bn")(x, train=train))
        if self.kind == "imagenet":
            x = max_pool(x, (3, 3), strides=(2, 2), padding=(self.pool_padding,) * 2)
        self.sow("intermediates", "output", x)
        return x


class Stage(nn.Module):
    """Blocks of one output size, `block1`, `block2`, ...; the first has the stage's stride.

    The last one's output is sown as `output` into the collection `intermediates`.

    Attributes:
      blocks: Number of blocks.
      stride: Stride of the first block.
      dilation: Dilation of the blocks.
      first_dilation: That of the first block up to the convolution with its stride.
      block: Makes a block: `block(stride=..., dilation=..., first_dilation=..., name=...)`.
      remat: Keep only the input of each block, and compute the block again for the gradients.
    """

    blocks: int
    stride: int
    dilation: int
    first_dilation: int
    block: Callable[..., nn.Module]
    remat: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h2 w2 d"]:
        """Returns the output of the last block."""

        def run(block: nn.Module, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
            return block(x, train=train)

        run = nn.remat(run) if self.remat else run
        for i in range(self.blocks):
            stride, first = (1, None) if i else (self.stride, self.first_dilation)
            block = self.block(
                stride=stride, dilation=self.dilation, first_dilation=first, name=f"block{i + 1}"
            )
            x = run(block, x)
        self.sow("intermediates", "output", x)
        return x


class ResNet(nn.Module):
    """A residual or plain network: stem, stages, global average pooling and a linear head.

    Submodules are `stem`, `stage1`, `stage2`, ... and `head`; each stage halves the resolution (the
    first does not) and doubles the filters. `apply(..., mutable=["intermediates"])` brings the
    outputs of the stem and the stages, as `intermediates[name]["output"][0]`; see also `features`.

    Variants by name (`resnet_jax.create_model`):
      resnet18, 34, 50, 101, 152: table 1, shortcut B, down-sampling as in the paper ("v1").
      resnet18_v1_5, ...: the form of torchvision and others: the stride on the 3x3 convolution,
        and a max-pool that is padded on both sides.
      plain18, plain34: the same without shortcuts.
      cifar_resnet20, 32, 44, 56, 110, 1202: section 4.2, shortcut A.
      cifar_plain20, 32, 44, 56, 110: the same without shortcuts.
      cifar_resnet8: one block a stage; not in the paper, for small images and quick trials.

    Attributes:
      stage_sizes: Blocks of each stage.
      block: `ResidualBlock` or `BottleneckBlock`, or another that takes their fields.
      num_classes: Number of logits.
      width: Filters of the first stage's blocks, and of the stem.
      stem: "imagenet" or "cifar", see `Stem`.
      pool_padding: Padding of the stem's max-pool, before and after: (0, 1) as Caffe's pooling
        that rounds up, in the paper; (1, 1) in PyTorch's networks.
      shortcut: "A", "B", "C" (see `Shortcut`), or `None` for a plain network.
      stride_on: Where a bottleneck's stride is, "1x1" or "3x3".
      zero_init_residual: Start the last scale of every block at zero.
      output_stride: Pixels of the image to one of the last stage, for dense prediction: stages
        that would go beyond it keep the resolution, and dilate their 3x3 convolutions instead
        (8 or 16 in DeepLab, Chen et al., arXiv 1606.00915). In the first of such blocks those up
        to the convolution that had the stride keep the dilation of the stage before, so that the
        network, with the same variables, agrees with the one without where that has pixels.
        `None`: no stage is dilated (32 for `resnet50`).
      remat: Keep only the input of each block in training, and compute the block again for the
        gradients: less memory for one more forward pass. Numbers change by rounding only.
      dtype: Type of the arithmetic; parameters, statistics, head and logits are float32.
      bn_momentum, bn_epsilon, bn_group_size, bn_axis_name: Fields of `BatchNorm`.
      lowering: "plain", or "fast" on this platform (`resnet_jax.models.lowering`).

    Raises:
      InputError: A field has a wrong value.
    """

    stage_sizes: Sequence[int]
    block: Callable[..., nn.Module] = BottleneckBlock
    num_classes: int = 1000
    width: int = 64
    stem: StemKind = "imagenet"
    pool_padding: tuple[int, int] = (0, 1)
    shortcut: ShortcutKind | None = "B"
    stride_on: StrideOn = "1x1"
    zero_init_residual: bool = False
    output_stride: int | None = None
    remat: bool = False
    dtype: Dtype = jnp.float32
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    bn_group_size: GroupSize = None
    bn_axis_name: str | None = None
    lowering: Lowering = "plain"

    def __post_init__(self) -> None:
        checks.one_of("stem", self.stem, get_args(StemKind))
        checks.one_of("shortcut", self.shortcut, (*get_args(ShortcutKind), None))
        checks.one_of("stride_on", self.stride_on, get_args(StrideOn))
        # Lists, as a config or JSON brings them, could not be hashed, and so not be static in jit.
        self.stage_sizes = tuple(self.stage_sizes)
        self.pool_padding = tuple(self.pool_padding)
        checks.at_least_one(self, "stage_sizes", "num_classes", "width")
        checks.statistics_group(self.bn_group_size)
        if len(self.pool_padding) != 2 or not set(self.pool_padding) <= {0, 1, 2}:
            raise InputError(f"pool_padding is {self.pool_padding}; it must be two of 0, 1 and 2")
        strides = [self._stem_stride * 2**i for i in range(len(self.stage_sizes))]
        checks.one_of("output_stride", self.output_stride, (*strides, None))
        checks.one_of("lowering", self.lowering, get_args(Lowering))
        super().__post_init__()

    @property
    def _stem_stride(self) -> int:
        return 4 if self.stem == "imagenet" else 1

    @nn.compact
    @lowered
    def __call__(self, images: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n logits"]:
        """Returns float32 logits; `train` normalises by the batch and updates `batch_stats`."""
        norm = batch_norm_of(self)
        x = Stem(self.width, self.stem, self.pool_padding, norm, self.dtype, name="stem")(
            images.astype(self.dtype), train=train
        )
        output_stride, dilation = self._stem_stride, 1
        for i, blocks in enumerate(self.stage_sizes):
            stride, first_dilation = 1 if i == 0 else 2, dilation
            if output_stride * stride > (self.output_stride or math.inf):
                stride, dilation = 1, dilation * stride
            output_stride *= stride
            block = functools.partial(
                self.block,
                filters=self.width * 2**i,
                shortcut=self.shortcut,
                zero_init_residual=self.zero_init_residual,
                stride_on=self.stride_on,
                norm=norm,
                dtype=self.dtype,
            )
            stage = Stage(
                blocks, stride, dilation, first_dilation, block, self.remat, name=f"stage{i + 1}"
            )
            x = stage(x, train=train)
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)  # in bfloat16 the sum would lose digits
        # Small, so that all classes start as equally likely (Goyal et al., section 5.1): the He
        # initialiser is for layers that a rectifier follows.
        small = normal(0.01)
        return nn.Dense(self.num_classes, kernel_init=small, name="head")(x)

    def fully_convolutional(self, images: Float[Array, "n h w c"], *, train: bool) -> Array:
        """Returns the logits: global pooling is their mean over all positions."""
        return self(images, train=train)


def _variants() -> Mapping[str, Variant]:
    variants = {}
    plain = {"shortcut": None}
    depths = {
        18: (ResidualBlock, (2, 2, 2, 2)),
        34: (ResidualBlock, (3, 4, 6, 3)),
        50: (BottleneckBlock, (3, 4, 6, 3)),
        101: (BottleneckBlock, (3, 4, 23, 3)),
        152: (BottleneckBlock, (3, 8, 36, 3)),
    }
    for depth, (block, stage_sizes) in depths.items():
        resnet = {"stage_sizes": stage_sizes, "block": block}
        variants[f"resnet{depth}"] = Variant(ResNet, resnet)
        v1_5 = {"stride_on": "3x3", "pool_padding": (1, 1)}
        variants[f"resnet{depth}_v1_5"] = Variant(ResNet, resnet | v1_5)
        if block is ResidualBlock:
            variants[f"plain{depth}"] = Variant(ResNet, resnet, fixed=plain)
    small = functools.partial(Variant, ResNet, image_shape=(32, 32, 3))
    for depth in (8, 20, 32, 44, 56, 110, 1202):
        cifar = {
            "stage_sizes": ((depth - 2) // 6,) * 3,
            "block": ResidualBlock,
            "num_classes": 10,
            "width": 16,
            "stem": "cifar",
        }
        variants[f"cifar_resnet{depth}"] = small(cifar | {"shortcut": "A"})
        if depth <= 110:
            variants[f"cifar_plain{depth}"] = small(cifar, fixed=plain)
    return variants


VARIANTS: Mapping[str, Variant] = _variants()
