"""ZFNet (Zeiler, Fergus, arXiv 1311.2901)."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from resnet_jax.models import checks
from resnet_jax.models.layers import HiddenLayers, Vectors, cells, local_response_norm, windows
from resnet_jax.models.variant import Variant


class ZFNet(nn.Module):
    """AlexNet with a first convolution of 7x7 and stride 2, and a second of stride 2.

    Five convolutions, `conv1` to `conv5`, two hidden layers, `hidden`, and a linear `head`. On
    224x224 pixels the maps have sides 110, 55, 26, 13 and 6 (figure 3 of the paper; its poolings
    round up). Those of images of other sizes are averaged into 6x6 cells.

    The paper says that maps are contrast normalised after the first two poolings, and not how:
    here it is AlexNet's local response normalisation.

    Variants by name (`resnet_jax.create_model`):
      zfnet: with AlexNet's numbers of filters; 62,357,608 parameters.
      zfnet_wide: 512, 1024 and 512 filters in the last three, of the paper's best network.

    Attributes:
      num_classes: Number of logits.
      filters: Channels of the five convolutions.
      hidden_units: Units of each hidden layer.
      dropout_rate: Share of their outputs that is dropped in training.
      dtype: Type of the arithmetic; parameters, head and logits are float32.

    Kernels start normally with deviation 0.01, biases at 0 (section 3 of the paper).

    Raises:
      InputError: A field has a wrong value.
    """

    num_classes: int = 1000
    filters: Sequence[int] = (96, 256, 384, 384, 256)
    hidden_units: int = 4096
    dropout_rate: float = 0.5
    dtype: Dtype = jnp.float32

    def __post_init__(self) -> None:
        self.filters = tuple(self.filters)
        checks.length("filters", self.filters, 5)
        checks.at_least_one(self, "num_classes", "filters", "hidden_units")
        checks.share("dropout_rate", self.dropout_rate)
        super().__post_init__()

    def __call__(
        self, images: Float[Array, "n h w c"], *, train: bool
    ) -> Float[Array, "n num_classes"]:
        """Returns float32 logits; `train` needs `rngs={"dropout": key}`.

        Raises:
          InputError: The images are too small.
        """
        return self._forward(images, cells, train=train)

    def fully_convolutional(
        self, images: Float[Array, "n h w c"], *, train: bool
    ) -> Float[Array, "n num_classes"]:
        """Returns the mean of the logits over all windows of 6x6 of the last maps.

        Raises:
          InputError: The images are too small.
        """
        return self._forward(images, windows, train=train).mean(axis=(1, 2))

    @nn.compact
    def _forward(
        self, images: Float[Array, "n h w c"], vectors: Vectors, *, train: bool
    ) -> Float[Array, "*n num_classes"]:
        checks.at_least_pixels("ZFNet", images, 47)
        x = images.astype(self.dtype)
        x = local_response_norm(_pool(self._convolve(x, 1, 7, stride=2, padding=1)))
        x = local_response_norm(_pool(self._convolve(x, 2, 5, stride=2, padding=0)))
        for number in (3, 4, 5):
            x = self._convolve(x, number, 3, stride=1, padding=1)
        x = vectors(_pool(x), 6)
        x = HiddenLayers(self.hidden_units, self.dropout_rate, dtype=self.dtype, name="hidden")(
            x, train=train
        )
        init = nn.initializers.normal(0.01)
        return nn.Dense(self.num_classes, kernel_init=init, name="head")(x.astype(jnp.float32))

    def _convolve(
        self, x: Float[Array, "n h w c"], number: int, size: int, *, stride: int, padding: int
    ) -> Float[Array, "n h2 w2 d"]:
        return nn.relu(
            nn.Conv(
                self.filters[number - 1],
                (size, size),
                strides=stride,
                padding=padding,
                dtype=self.dtype,
                kernel_init=nn.initializers.normal(0.01),
                name=f"conv{number}",
            )(x)
        )


def _pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((0, 1), (0, 1)))


VARIANTS: Mapping[str, Variant] = {
    "zfnet": Variant(ZFNet),
    "zfnet_wide": Variant(ZFNet, {"filters": (96, 256, 512, 1024, 512)}),
}
