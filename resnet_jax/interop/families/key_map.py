"""Name maps: which name and layout a library gives each array of a family of networks.

Names here are paths such as `params/stage1/block2/conv1/kernel`, with the collections `params` and
`batch_stats` of the network and those of the extra arrays in `weights`. Kernels are [height, width,
in, out] here and linear ones [in, out]. PyTorch's running variances are unbiased where those of
`BatchNorm` are biased; they are taken over as they are: to evaluate, a network uses the numbers it
was saved with.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Shaped

from resnet_jax.errors import InputError

DialectName = Literal["torchvision", "timm", "huggingface", "keras", "caffe", "resnet_jax"]
Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Mapping[str, Shape]
Fields: TypeAlias = dict[str, Any]

_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}
_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "count": "num_batches_tracked",
}
_TORCH_COLLECTIONS = ("params", "batch_stats", "batches_tracked")
_MOST_STAGES = 10


class Key(NamedTuple):
    """Name and layout of an array in a library.

    Attributes:
      name: Its name there.
      channels_first: Kernels are [out, in, height, width] there, and linear ones [out, in].
      side: Of maps that a linear layer flattens, as [channel, height, width] there; else 0.
      reversed_inputs: The input channels are in reverse there: BGR for RGB.
    """

    name: str
    channels_first: bool = False
    side: int = 0
    reversed_inputs: bool = False

    def their_shape(self, shape: Sequence[int]) -> Shape:
        """Returns the library's shape of an array that has this shape here."""
        return tuple(shape[axis] for axis in self._axes(len(shape)))

    def our_shape(self, shape: Sequence[int]) -> Shape:
        """Returns the shape here of an array that has this shape in the library."""
        return tuple(shape[axis] for axis in np.argsort(self._axes(len(shape))))

    def to_theirs(self, array: Shaped[np.ndarray, "..."]) -> np.ndarray:
        """Returns an array of ours in the library's layout, a view where possible."""
        if self.side:
            inputs, outputs = array.shape
            maps = array.reshape(self.side, self.side, -1, outputs)
            return maps.transpose(3, 2, 0, 1).reshape(outputs, inputs)
        if self.reversed_inputs:
            array = array[..., ::-1, :]
        return array.transpose(self._axes(array.ndim))

    def to_ours(self, array: Shaped[np.ndarray, "..."]) -> np.ndarray:
        """Returns an array of the library in our layout, a view where possible."""
        if self.side:
            outputs, inputs = array.shape
            maps = array.reshape(outputs, -1, self.side, self.side)
            return maps.transpose(2, 3, 1, 0).reshape(inputs, outputs)
        array = array.transpose(np.argsort(self._axes(array.ndim)))
        return array[..., ::-1, :] if self.reversed_inputs else array

    def _axes(self, dimensions: int) -> Shape:
        same = tuple(range(dimensions))
        return _TO_TORCH.get(dimensions, same) if self.channels_first else same


def split(name: str) -> tuple[str, list[str], str]:
    """Returns the collection, the path of the module and the leaf of a name of ours."""
    collection, *module, leaf = name.split("/")
    return collection, module, leaf


def torch_key(name: str, module: str, *, side: int = 0) -> Key | None:
    """Returns the key of an array in a module of PyTorch; None if PyTorch has no such array."""
    collection, _, leaf = split(name)
    if collection not in _TORCH_COLLECTIONS:
        return None
    return Key(f"{module}.{_TORCH_LEAVES[leaf]}", True, side if leaf == "kernel" else 0)


class OurShapes(NamedTuple):
    """The shapes of a library's arrays, with its keys, by our names and in our layout."""

    shapes: Shapes
    key: Callable[[str], Key | None]

    def get(self, name: str) -> Shape | None:
        """Returns the shape of an array, None if it is missing."""
        key = self.key(name)
        if key is None or key.name not in self.shapes:
            return None
        return key.our_shape(self.shapes[key.name])

    def require(self, name: str, dimensions: int) -> Shape:
        """Returns the shape of an array, which has to be there with so many dimensions."""
        shape, key = self.get(name), self.key(name)
        if shape is None or len(shape) != dimensions:
            raise InputError(
                f"it does not fit the network that it looks most like; "
                f"{name if key is None else key.name} is {shape or 'missing'}, and has to have "
                f"{dimensions} dimensions"
            )
        return shape

    def stage_sizes(self, name: str) -> tuple[int, ...]:
        """Returns the number of arrays of each stage; a name has two `{}`, for stage and array."""
        self.require(name.format(1, 1), 4)

        def size(stage: int) -> int:
            names = (name.format(stage, number) for number in itertools.count(1))
            return sum(1 for _ in itertools.takewhile(self.get, names))

        return tuple(itertools.takewhile(bool, map(size, range(1, _MOST_STAGES + 1))))


@dataclasses.dataclass(frozen=True)
class KeyMap:
    """The networks of a family as a library has them.

    Attributes:
      typical: Name of an array in every such file, or its beginning.
      infer: The fields of the network that names and shapes show; raises `InputError` where they
        are of another network.
      key: The library's key of an array, by network and our name; None if the library has no such
        array. Raises `InputError` where it has no such network.
      form: The library's values of the fields that no array shows.
      fill: The number that fills an extra array (see `weights`) which the library always has,
        by network and our name; None if it has no such array.
    """

    typical: str
    infer: Callable[[Shapes], Fields]
    key: Callable[[Any, str], Key | None]
    form: Mapping[str, Any]
    fill: Callable[[Any, str], float | None] = lambda network, name: None


def fixed_names(
    typical: str,
    key: Callable[[str], Key | None],
    infer: Callable[[OurShapes], Fields],
    form: Mapping[str, Any],
) -> KeyMap:
    """Returns a map whose keys do not depend on the network, see `KeyMap`."""
    return KeyMap(
        typical,
        infer=lambda shapes: infer(OurShapes(shapes, key)),
        key=lambda network, name: key(name),
        form=form,
    )


def own_names(
    infer: Callable[[OurShapes], Fields] = lambda shapes: {},
    form: Mapping[str, Any] | None = None,
) -> KeyMap:
    """Returns the key map of our own names; `form` is that of a file without metadata."""
    return fixed_names("params/", Key, infer, form or {})
