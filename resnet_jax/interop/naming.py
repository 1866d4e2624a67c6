"""Where libraries have the arrays of a network: under which name, and laid out how.

Names of ours are paths such as `params/stage1/block2/conv1/kernel`, with the collections `params`
and `batch_stats` of the network, and three of what libraries keep beside it, which no network here
reads (see `beside`). Kernels are [height, width, in, out] here and linear ones [in, out]. PyTorch's
running variances are unbiased where those of `BatchNorm` are biased; they are estimates of the same
and taken over as they are: to evaluate, a network has to use the numbers that it was saved with.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Shaped

DialectName = Literal["torchvision", "timm", "huggingface", "keras", "caffe", "resnet_jax"]

_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}


class Place(NamedTuple):
    """Where a library has an array of ours.

    Attributes:
      name: What it is called there.
      channels_first: Whether kernels are [out, in, height, width] there, and linear ones [out, in].
      side: Of the maps that a linear layer flattens, if it does and the channels come first there:
        here its inputs are [height, width, channel], and there [channel, height, width].
      reversed_inputs: Whether the channels that it reads are in reverse there: BGR for RGB.
    """

    name: str
    channels_first: bool = False
    side: int = 0
    reversed_inputs: bool = False

    def shape_there(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape there of an array that has this shape here."""
        return tuple(shape[axis] for axis in self._axes(len(shape)))

    def shape_here(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape here of an array that has this shape there."""
        return tuple(shape[axis] for axis in np.argsort(self._axes(len(shape))))

    def there(self, array: Shaped[np.ndarray, "..."]) -> np.ndarray:
        """Returns an array of ours as it is laid out there, a view where that can be."""
        if self.side:
            inputs, outputs = array.shape
            maps = array.reshape(self.side, self.side, -1, outputs)
            return maps.transpose(3, 2, 0, 1).reshape(outputs, inputs)
        if self.reversed_inputs:
            array = array[..., ::-1, :]
        return array.transpose(self._axes(array.ndim))

    def here(self, array: Shaped[np.ndarray, "..."]) -> np.ndarray:
        """Returns an array of theirs as it is laid out here, a view where that can be."""
        if self.side:
            outputs, inputs = array.shape
            maps = array.reshape(outputs, -1, self.side, self.side)
            return maps.transpose(2, 3, 1, 0).reshape(inputs, outputs)
        array = array.transpose(np.argsort(self._axes(array.ndim)))
        return array[..., ::-1, :] if self.reversed_inputs else array

    def _axes(self, dimensions: int) -> tuple[int, ...]:
        same = tuple(range(dimensions))
        return _TO_TORCH.get(dimensions, same) if self.channels_first else same


_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "count": "num_batches_tracked",
}
_TORCH_COLLECTIONS = ("params", "batch_stats", "batches_tracked")


def split(name: str) -> tuple[str, list[str], str]:
    """Returns collection, path of the module and leaf of a name of ours."""
    collection, *module, leaf = name.split("/")
    return collection, module, leaf


def torch_place(name: str, module: str, *, side: int = 0) -> Place | None:
    """Returns where a module of PyTorch has an array of ours; None if it has no place for it.

    Args:
      name: The array's name here.
      module: The module's name there.
      side: Of the maps that it flattens, if it does.
    """
    collection, _, leaf = split(name)
    if collection not in _TORCH_COLLECTIONS:
        return None
    return Place(f"{module}.{_TORCH_LEAVES[leaf]}", True, side if leaf == "kernel" else 0)
