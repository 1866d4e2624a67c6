"""A layer of a network, and the list of all with their totals."""

import dataclasses
import math
from typing import Literal

Kind = Literal["conv", "dense", "max_pool", "avg_pool", "matmul", "scale"]
Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer, for one image.

    Attributes:
      name: Path of the submodule that has the parameters ("stage2/block1/conv2"); without
        parameters, the submodule around the layer and its kind ("stem/max_pool").
      kind: "conv", "dense", "max_pool", "avg_pool"; "matmul" for a product of two activations;
        "scale" for parameters that are applied in place, as those of batch normalisation.
      output: Height, width and channels of the output, or its units.
      parameters: Number of parameters, those that earlier layers share left out.
      multiply_adds: Those of convolutions and matrix products, padding included.
      receptive_field: Rows and columns of the image that a position of the output depends on,
        counted beyond the border too.
      filter: Height, width and, of a convolution, its input channels; or `None`.
      stride: Rows and columns from one position of the filter to the next.
      padding: Rows before and after, columns before and after.
      dilation: Rows and columns from one pixel under the filter to the next.
    """

    name: str
    kind: Kind
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int
    receptive_field: Pair
    filter: tuple[int, ...] | None = None
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    @property
    def activations(self) -> int:
        """The number of outputs that take memory of their own: 0 for a "scale"."""
        return 0 if self.kind == "scale" else math.prod(self.output)


@dataclasses.dataclass(frozen=True)
class Summary:
    """The layers of a network in the order of computation, and their totals.

    Attributes:
      image_shape: Height, width and channels of the image.
      layers: The layers.
      training_parameters: Number of further parameters that only training uses (those of
        auxiliary classifiers).
    """

    image_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    training_parameters: int

    @property
    def parameters(self) -> int:
        """The number of parameters that evaluation uses."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of convolutions and matrix products for an image."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activations(self) -> int:
        """The activations of an image: the image itself and the outputs of the layers.

        Operations that can be done in place (rectification, normalisation, addition) or that only
        rearrange (concatenation, the cells of pyramid pooling) do not count: VGG-16 has
        15,237,608, as in lectures.
        """
        return math.prod(self.image_shape) + sum(layer.activations for layer in self.layers)
