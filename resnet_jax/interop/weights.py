"""A network and its arrays, between two files."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import PyTree, Shaped

from resnet_jax.errors import InputError
from resnet_jax.interop.form import check_fit, check_types, expected_shapes, input_channels
from resnet_jax.interop.preprocessing import Preprocessing
from resnet_jax.models import ResNet

Variables = Mapping[str, PyTree[Shaped[np.ndarray, "..."]]]


class Weights(NamedTuple):
    """A network and its arrays.

    Attributes:
      network: The network.
      arrays: By name, such as `params/stage1/block1/conv1/kernel`, laid out as here, in the types
        that they were stored in. `batches_tracked/.../count` is PyTorch's `num_batches_tracked`,
        where there is one.
      preprocessing: What images have to go through.
      source: Where they come from.
    """

    network: ResNet
    arrays: dict[str, np.ndarray]
    preprocessing: Preprocessing
    source: str

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.arrays["params/stem/conv/kernel"].shape[2]


def of_variables(
    network: nn.Module,
    variables: Variables,
    preprocessing: Preprocessing,
    source: str,
    *,
    batches_tracked: int = 0,
) -> Weights:
    """Returns the weights of a network in memory.

    Args:
      network: The network, a `ResNet`.
      variables: Its `params` and `batch_stats`.
      preprocessing: What images have to go through.
      source: What it is called in messages.
      batches_tracked: How many batches its statistics have seen, as PyTorch counts them.

    Raises:
      InputError: The network is no `ResNet`, or the variables are not its.
    """
    if not isinstance(network, ResNet):
        raise InputError(f"{source} is a {type(network).__name__}; only a ResNet has other names")
    tree = {name: variables[name] for name in ("params", "batch_stats")}
    flat = traverse_util.flatten_dict(tree, sep="/")
    arrays = {name: np.asarray(array) for name, array in flat.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    try:
        expected = expected_shapes(network, input_channels("resnet_jax", shapes))
        check_fit("resnet_jax", shapes, expected)
        check_types(arrays)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    counts = {
        name: np.array(batches_tracked, np.int64)
        for name in expected
        if name.startswith("batches_tracked/")
    }
    return Weights(network, arrays | counts, preprocessing, source)
