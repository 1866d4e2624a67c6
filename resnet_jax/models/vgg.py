"""VGG networks (Simonyan, Zisserman, arXiv 1409.1556)."""

from collections.abc import Mapping, Sequence
from typing import get_args

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from resnet_jax.models import checks
from resnet_jax.models.layers import FixedSizeTop, HiddenLayers, Vectors, he_normal, normal
from resnet_jax.models.lowering import Conv, Lowering, lowered, max_pool
from resnet_jax.models.normalization import GroupSize, batch_norm_of
from resnet_jax.models.variant import NO_BATCH_NORM, Variant


class VGG(FixedSizeTop):
    """Stages of 3x3 convolutions, each stage with a 2x2 max-pool, and fully connected layers.

    Convolutions are `conv1_1`, `conv1_2`, ..., `conv5_4` by stage, then come two hidden layers,
    `hidden`, and a linear `head`. On 224x224 pixels the last maps have sides of 7; those of images
    of other sizes are averaged into 7x7 cells, as in torchvision.

    Variants by name (`resnet_jax.create_model`):
      vgg11, vgg13, vgg16, vgg19: configurations A, B, D and E of table 1; 132,863,336,
        133,047,848, 138,357,544 and 143,667,240 parameters.
      vgg11_bn, ...: with batch normalisation (`bn1_1`, ...) after every convolution, as in
        torchvision, whose convolutions keep their biases, although the normalisation takes them
        away again.

    Attributes:
      stage_sizes: Convolutions of each stage.
      num_classes: Number of logits.
      width: Filters of the first stage; each stage doubles them, up to eight times as many.
      hidden_units: Units of each hidden layer.
      batch_norm: Normalise after every convolution.
      dropout_rate: Share of the outputs of the hidden layers that is dropped in training.
      dtype: Type of the arithmetic; parameters, statistics, head and logits are float32.
      bn_momentum, bn_epsilon, bn_group_size, bn_axis_name: Fields of `BatchNorm`.
      lowering: "plain", or "fast" on this platform (`resnet_jax.models.lowering`).

    Convolutions start as in He et al. 2015, which trains all depths from scratch; the paper's
    normal draws of deviation 0.01 (here those of the fully connected layers) do so for `vgg11`
    only, from whose layers the paper started the deeper ones.

    Raises:
      InputError: A field has a wrong value, or images are too small.
    """

    stage_sizes: Sequence[int]
    num_classes: int = 1000
    width: int = 64
    hidden_units: int = 4096
    batch_norm: bool = False
    dropout_rate: float = 0.5
    dtype: Dtype = jnp.float32
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    bn_group_size: GroupSize = None
    bn_axis_name: str | None = None
    lowering: Lowering = "plain"

    def __post_init__(self) -> None:
        self.stage_sizes = tuple(self.stage_sizes)
        checks.at_least_one(self, "stage_sizes", "num_classes", "width", "hidden_units")
        checks.share("dropout_rate", self.dropout_rate)
        checks.statistics_group(self.bn_group_size)
        checks.one_of("lowering", self.lowering, get_args(Lowering))
        super().__post_init__()

    @nn.compact
    @lowered
    def _forward(
        self, images: Float[Array, "n h w c"], vectors: Vectors, *, train: bool
    ) -> Float[Array, "*n num_classes"]:
        checks.at_least_pixels("VGG", images, 2 ** len(self.stage_sizes))
        norm = batch_norm_of(self)
        x = images.astype(self.dtype)
        for stage, convolutions in enumerate(self.stage_sizes, 1):
            for layer in range(1, convolutions + 1):
                x = Conv(
                    self.width * min(2 ** (stage - 1), 8),
                    (3, 3),
                    padding=1,
                    dtype=self.dtype,
                    kernel_init=he_normal,
                    name=f"conv{stage}_{layer}",
                )(x)
                if self.batch_norm:
                    x = norm(name=f"bn{stage}_{layer}")(x, train=train)
                x = nn.relu(x)
            x = max_pool(x, (2, 2), strides=(2, 2))
        x = vectors(x, 7)
        x = HiddenLayers(self.hidden_units, self.dropout_rate, dtype=self.dtype, name="hidden")(
            x, train=train
        )
        init = normal(0.01)
        return nn.Dense(self.num_classes, kernel_init=init, name="head")(x.astype(jnp.float32))


def _variants() -> Mapping[str, Variant]:
    variants = {}
    depths = {
        11: (1, 1, 2, 2, 2),
        13: (2, 2, 2, 2, 2),
        16: (2, 2, 3, 3, 3),
        19: (2, 2, 4, 4, 4),
    }
    for depth, stage_sizes in depths.items():
        vgg = {"stage_sizes": stage_sizes}
        plain = {"batch_norm": False, **NO_BATCH_NORM}
        variants[f"vgg{depth}"] = Variant(VGG, vgg, fixed=plain)
        variants[f"vgg{depth}_bn"] = Variant(VGG, vgg, fixed={"batch_norm": True})
    return variants


VARIANTS: Mapping[str, Variant] = _variants()
