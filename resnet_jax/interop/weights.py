"""A network and its arrays, between two files."""

from collections.abc import Mapping
from typing import NamedTuple, cast

import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import PyTree, Shaped

from resnet_jax.errors import InputError
from resnet_jax.interop.beside import beside_shapes
from resnet_jax.interop.families import Network, family_of
from resnet_jax.interop.families.family import Look
from resnet_jax.interop.form import check_fit, check_types, network_shapes
from resnet_jax.interop.naming import Place
from resnet_jax.interop.preprocessing import Preprocessing, usual

MEAN_IMAGE = "preprocessing/mean_image"
"""Name of a preprocessing's mean image among the arrays of a file."""

Variables = Mapping[str, PyTree[Shaped[np.ndarray, "..."]]]


class Weights(NamedTuple):
    """A network and its arrays.

    Attributes:
      network: The network.
      arrays: By name, such as `params/stage1/block1/conv1/kernel`, laid out as here, in the types
        that they were stored in; and what their library has beside them, see `beside`.
      preprocessing: What images have to go through.
      source: Where they come from.
    """

    network: Network
    arrays: dict[str, np.ndarray]
    preprocessing: Preprocessing
    source: str

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return image_channels(self.network, self.arrays)


def of_variables(
    network: nn.Module,
    variables: Variables,
    preprocessing: Preprocessing | None,
    source: str,
    *,
    batches_tracked: int = 0,
) -> Weights:
    """Returns the weights of a network in memory.

    Args:
      network: The network, of a class of this package.
      variables: Its `params` and, if it has any, `batch_stats`.
      preprocessing: What images have to go through; `None`: what is usual.
      source: What it is called in messages.
      batches_tracked: How many batches its statistics have seen, as PyTorch counts them.

    Raises:
      InputError: The network is of another class, or the variables are not its.
    """
    tree = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    flat = traverse_util.flatten_dict(tree, sep="/")
    arrays = {name: np.asarray(array) for name, array in flat.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    try:
        channels = image_channels(network, arrays)
        expected = network_shapes(network, channels)
        check_fit(Place, shapes, expected)
        check_types(arrays)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    counts = {
        name: np.array(batches_tracked, np.int64)
        for name in beside_shapes(expected)
        if name.startswith("batches_tracked/")
    }
    preprocessing = preprocessing or usual(channels, family_of(network).side)
    return Weights(cast(Network, network), arrays | counts, preprocessing, source)


def image_channels(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> int:
    """Returns how many channels the images of a network have; 3 if its arrays do not show it.

    Raises:
      InputError: The network is of no class of this package.
    """
    shapes = {name: array.shape for name, array in arrays.items()}
    return family_of(network).channels(Look(shapes, Place))
