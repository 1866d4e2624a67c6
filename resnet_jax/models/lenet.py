"""LeNet-5 (LeCun, Bottou, Bengio, Haffner, Proceedings of the IEEE, November 1998)."""

from collections.abc import Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype, Initializer, Shape
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.errors import InputError
from resnet_jax.models import checks
from resnet_jax.models.layers import average_pool
from resnet_jax.models.lowering import Conv, Lowering, lowered
from resnet_jax.models.variant import Variant

Subsampling = Literal["trainable", "average"]
Connections = Literal["dense", "table"]
Output = Literal["linear", "rbf"]
Activation = Literal["tanh", "relu"]

TABLE_1 = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)
"""The maps of S2 that each of the 16 maps of C3 is connected to (table I of the paper)."""

# Read off figure 3 of the paper, which has the whole of ASCII: "#" is +1 and "." is -1. The bars
# above some digits are in the figure.
_BITMAPS = """
.#####.  ...##..  .#####.  #######  .#####.
.......  ..###..  .......  .....##  .......
..###..  .####..  .#####.  ....##.  .......
.##.##.  ...##..  ##...##  ...##..  .##..##
##...##  ...##..  #....##  ..####.  .##..##
##...##  ...##..  ....##.  .....##  ###..##
##...##  ...##..  ..###..  .....##  ##...##
##...##  ...##..  .##....  .....##  ##...##
.##.##.  ...##..  ##.....  ##...##  ##..###
..###..  .######  #######  .#####.  .######
.......  .......  .......  .......  .....##
.......  .......  .......  .......  .....##

.#####.  ..####.  #######  .#####.  .#####.
.......  .##....  .....##  ##...##  ##..###
#######  ##.....  .....##  ##...##  ##...##
##.....  ##.....  ....##.  ##...##  ##...##
##.....  ######.  ...##..  .#####.  ##..###
.####..  ###..##  ...##..  ##...##  .######
..####.  ##...##  ..##...  ##...##  .....##
.....##  ##...##  ..##...  ##...##  .....##
##...##  ###..##  ..##...  ##...##  ....##.
.#####.  .#####.  ..##...  .#####.  .####..
.......  .......  .......  .......  .......
.......  .......  .......  .......  .......
"""


def _digits() -> np.ndarray:
    halves = [half.splitlines() for half in _BITMAPS.strip("\n").split("\n\n")]
    digits = [[row.split()[i] for row in half] for half in halves for i in range(5)]
    return np.array([[[1 if p == "#" else -1 for p in row] for row in digit] for digit in digits])


DIGITS = _digits()
"""The codes of 0 to 9: an array of -1 and 1 of shape (10, 12, 7)."""


def scaled_tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `1.7159 tanh(2/3 x)`, which is 1 at 1 and -1 at -1 (appendix A of the paper)."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


def initializer(activation: Activation, fan_in: int | np.ndarray) -> Initializer:
    """Returns how kernels start before an activation.

    Before "tanh": uniformly between +-2.4 / `fan_in` (appendix A of the paper). Before "relu":
    normally with variance 2 / `fan_in` (He et al., arXiv 1502.01852). `fan_in` is an array where
    it differs along the last axis.
    """
    scale = np.asarray(2.4 / fan_in if activation == "tanh" else np.sqrt(2 / fan_in), np.float32)

    def init(key: Array, shape: Shape, dtype: Dtype = jnp.float32) -> Array:
        if activation == "tanh":
            drawn = jax.random.uniform(key, shape, dtype, -1, 1)
        else:
            drawn = jax.random.normal(key, shape, dtype)
        return drawn * jnp.broadcast_to(scale, shape)

    return init


class Subsample(nn.Module):
    """The sum of 2x2 pixels, times a trainable coefficient, plus a trainable bias, per map."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h/2 w/2 c"]:
        """Returns the maps at half the resolution, before their activation."""
        maps = x.shape[-1:]
        coefficient = self.param("coefficient", initializer("tanh", 4), maps, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, maps, jnp.float32)
        coefficient, bias = (a.astype(self.dtype)[None, None, None] for a in (coefficient, bias))
        return 4 * average_pool(x, 2, 2) * coefficient + bias


class TableConvolution(nn.Module):
    """A 5x5 convolution of 6 maps into 16, with the connections of `TABLE_1` only."""

    activation: Activation = "tanh"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 6"]) -> Float[Array, "n h-4 w-4 16"]:
        """Returns the maps before their activation."""
        source = np.array([i for maps in TABLE_1 for i in maps])
        target = np.array([j for j, maps in enumerate(TABLE_1) for _ in maps])
        fan_in = 25 * np.bincount(target)[target]
        init = initializer(self.activation, fan_in)
        connected = self.param("kernel", init, (5, 5, len(source)), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (len(TABLE_1),), jnp.float32)
        kernel = jnp.zeros((5, 5, 6, len(TABLE_1))).at[:, :, source, target].set(connected)
        y = lax.conv_general_dilated(
            x,
            kernel.astype(self.dtype),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + bias.astype(self.dtype)[None, None, None]


class LeNet5(nn.Module):
    """LeNet-5 for images of 32x32 pixels: `c1`, `s2`, `c3`, `s4`, `c5`, `f6` and `head`.

    The paper's images have one channel, with the background at -0.1 and the ink at 1.175; digits
    of 28x28 pixels are padded by 2 of background.

    Variants by name (`resnet_jax.create_model`):
      lenet5: trainable subsampling, and for the rest dense connections and a linear output;
        61,750 parameters.
      lenet5_1998: the paper's in all: the connections of table I and the distances to fixed codes
        as outputs; 60,000 parameters.
      lenet5_modern: average pooling, ReLU, dense connections, a linear output; 61,706 parameters.

    Attributes:
      num_classes: Number of logits.
      subsampling: "trainable": a coefficient and a bias per map, and an activation. "average":
        2x2 average pooling.
      connections: Of C3: "dense", or those of the paper's "table" I.
      output: "linear", or "rbf": minus the squared distances of F6's 84 outputs to the digits'
        7x12 bitmaps of figure 3, which are not trained. As logits they make cross-entropy the
        paper's criterion (9) without its constant for rubbish.
      activation: "tanh" (`scaled_tanh`; kernels start as in the paper) or "relu" (they start as
        in He et al. 2015).
      dtype: Type of the arithmetic; parameters, outputs and logits are float32.
      lowering: "plain", or "fast" on this platform (`resnet_jax.models.lowering`).

    Raises:
      InputError: A field has a wrong value, or images another size.
    """

    num_classes: int = 10
    subsampling: Subsampling = "trainable"
    connections: Connections = "dense"
    output: Output = "linear"
    activation: Activation = "tanh"
    dtype: Dtype = jnp.float32
    lowering: Lowering = "plain"

    def __post_init__(self) -> None:
        checks.one_of("subsampling", self.subsampling, get_args(Subsampling))
        checks.one_of("connections", self.connections, get_args(Connections))
        checks.one_of("output", self.output, get_args(Output))
        checks.one_of("activation", self.activation, get_args(Activation))
        checks.at_least_one(self, "num_classes")
        if self.output == "rbf" and self.num_classes != len(DIGITS):
            raise InputError(
                f"output 'rbf' has codes for the {len(DIGITS)} digits, and num_classes is "
                f"{self.num_classes}; use output 'linear'"
            )
        checks.one_of("lowering", self.lowering, get_args(Lowering))
        super().__post_init__()

    @nn.compact
    @lowered
    def __call__(self, images: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n logits"]:
        """Returns float32 logits; `train` makes no difference."""
        if images.shape[1:3] != (32, 32):
            height, width = images.shape[1:3]
            raise InputError(
                f"LeNet-5 needs images of 32x32 pixels, and these are {height}x{width}; "
                "pad those of 28x28 by 2"
            )
        x = self._activate(self._convolve(images.astype(self.dtype), 6, "c1"))
        x = self._subsample(x, "s2")
        if self.connections == "table":
            x = TableConvolution(self.activation, self.dtype, name="c3")(x)
        else:
            x = self._convolve(x, 16, "c3")
        x = self._subsample(self._activate(x), "s4")
        x = self._activate(self._convolve(x, 120, "c5")).reshape(x.shape[0], -1)
        init = initializer(self.activation, 120)
        x = nn.Dense(84, dtype=self.dtype, kernel_init=init, name="f6")(x)
        x = self._activate(x).astype(jnp.float32)
        if self.output == "rbf":
            codes = jnp.asarray(DIGITS.reshape(len(DIGITS), -1), jnp.float32)
            return -jnp.sum(lax.square(x[:, None, :] - codes[None]), axis=-1)
        init = initializer(self.activation, 84)
        return nn.Dense(self.num_classes, kernel_init=init, name="head")(x)

    def _convolve(self, x: Float[Array, "n h w c"], filters: int, name: str) -> Array:
        init = initializer(self.activation, 25 * x.shape[-1])
        return Conv(filters, (5, 5), padding=0, dtype=self.dtype, kernel_init=init, name=name)(x)

    def _subsample(self, x: Float[Array, "n h w c"], name: str) -> Array:
        if self.subsampling == "average":
            return average_pool(x, 2, 2)
        return self._activate(Subsample(self.dtype, name=name)(x))

    def _activate(self, x: Float[Array, "..."]) -> Array:
        return nn.relu(x) if self.activation == "relu" else scaled_tanh(x)


VARIANTS: Mapping[str, Variant] = {
    name: Variant(LeNet5, fields, image_shape=(32, 32, 1))
    for name, fields in {
        "lenet5": {},
        "lenet5_1998": {"connections": "table", "output": "rbf"},
        "lenet5_modern": {"subsampling": "average", "activation": "relu"},
    }.items()
}
