"""A network and its arrays, between two files.

So that no conversion loses them, there are extra arrays, which some libraries store beside those of
a network here. They have three collections, by the name of the module that an array belongs to:
  `batches_tracked/.../count`: PyTorch's `num_batches_tracked`, of a normalisation.
  `conv_biases/.../bias`: of a convolution that a normalisation follows (Keras, and conv1 of He's
    ResNet-50). The normalisation subtracts it again with the mean: in training it changes no output
    and no gradient but its own, which is zero; in evaluation the running mean less the bias
    replaces it.
  `moving_factors/.../factor`: the number that Caffe's running mean and variance are divided by.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import PyTree, Shaped

from resnet_jax.errors import InputError
from resnet_jax.interop.families import key_maps, usual_side
from resnet_jax.interop.families.key_map import Key, Shape, Shapes, split
from resnet_jax.interop.formats import refusing
from resnet_jax.interop.preprocessing import Preprocessing, usual
from resnet_jax.models import variable_shapes

MEAN_IMAGE = "preprocessing/mean_image"
"""Name of a preprocessing's mean image among the arrays of a file."""

_EXTRA = ("batches_tracked", "conv_biases", "moving_factors")
_COLOURS, _GREY = 3, 1
_SHOWN = 3

Variables = Mapping[str, PyTree[Shaped[np.ndarray, "..."]]]


class Weights(NamedTuple):
    """A network and its arrays.

    Attributes:
      network: The network.
      arrays: By name, such as `params/stage1/block1/conv1/kernel`, in our layout and the types that
        they were stored in; also the library's extra arrays.
      preprocessing: How images are prepared.
      source: Where they come from.
    """

    network: nn.Module
    arrays: dict[str, np.ndarray]
    preprocessing: Preprocessing
    source: str

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return image_channels(self.network, shapes_of(self.arrays))


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
      preprocessing: How images are prepared; None: as is usual.
      source: Its name in messages.
      batches_tracked: Batches that its statistics have averaged, as PyTorch counts them.

    Raises:
      InputError: The network is of another class, or the variables are not its own.
    """
    tree = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    arrays = {n: np.asarray(a) for n, a in traverse_util.flatten_dict(tree, sep="/").items()}
    shapes = shapes_of(arrays)
    try:
        key_maps(type(network))
        channels = image_channels(network, shapes)
        expected = network_shapes(network, channels)
        check_fit(Key, shapes, expected)
        check_types(arrays)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    counts = {
        name: np.array(batches_tracked, np.int64)
        for name in extra_shapes(expected)
        if name.startswith("batches_tracked/")
    }
    preprocessing = preprocessing or usual(channels, usual_side(type(network)))
    return Weights(network, arrays | counts, preprocessing, source)


def shapes_of(arrays: Mapping[str, np.ndarray]) -> Shapes:
    """Returns the shapes of arrays by name."""
    return {name: array.shape for name, array in arrays.items()}


@functools.lru_cache(maxsize=64)
def network_shapes(network: nn.Module, channels: int) -> Shapes:
    """Returns the shape of each array of a network for images of so many channels, by our name."""
    side = usual_side(type(network))
    with refusing("its network cannot be made"):  # the fields can be a stranger's
        variables = variable_shapes(network, (side, side, channels))
    # The parameters first, so that a message about differences begins with them.
    tree = {name: variables[name] for name in ("params", "batch_stats")}
    flat = cast(dict[str, jax.ShapeDtypeStruct], traverse_util.flatten_dict(tree, sep="/"))
    return {name: leaf.shape for name, leaf in flat.items()}


def image_channels(network: nn.Module, shapes: Shapes) -> int:
    """Returns the channels of a network's images: 3 unless its arrays show another number.

    The shapes that depend on the channels are those that differ between the network for colour
    images and the one for grey images.
    """
    expected = network_shapes(network, _COLOURS)
    for name, shape in expected.items():
        actual = shapes.get(name, shape)
        if actual == shape or len(actual) != len(shape):
            continue
        grey = network_shapes(network, _GREY)[name]
        for size, grey_size, actual_size in zip(shape, grey, actual, strict=True):
            if size != grey_size:
                per_channel = (size - grey_size) // (_COLOURS - _GREY)
                return max(_GREY + (actual_size - grey_size) // per_channel, 1)
    return _COLOURS


def check_fit(key: Callable[[str], Key | None], shapes: Shapes, expected: Shapes) -> None:
    """Refuses arrays that are not a network's, with the first names and shapes that differ.

    `shapes` are by the library's names, and those of the network and its extra arrays by ours.
    """
    wanted = {
        theirs.name: (name, theirs.their_shape(shape))
        for name, shape in expected.items()
        if (theirs := key(name)) is not None
    }
    parts: dict[str, list[str]] = {"missing": [], "unexpected": [], "of other shapes": []}
    for theirs, (name, shape) in wanted.items():
        if theirs not in shapes and not is_extra(name):
            parts["missing"].append(f"{theirs} {shape}")
        elif shapes.get(theirs, shape) != shape:
            parts["of other shapes"].append(f"{theirs} is {shapes[theirs]} where {shape} fits")
    parts["unexpected"] = [f"{n} {shape}" for n, shape in sorted(shapes.items()) if n not in wanted]
    wrong = [f"{kind}: {_first(names)}" for kind, names in parts.items() if names]
    if wrong:
        raise InputError(f"it does not fit the network that it looks most like; {'; '.join(wrong)}")


def check_types(arrays: Mapping[str, np.ndarray]) -> None:
    """Refuses learned arrays that are not floating-point, and counts that are not integers."""
    for name, array in arrays.items():
        kind = jnp.integer if name.startswith("batches_tracked/") else jnp.floating
        if not jnp.issubdtype(array.dtype, kind):
            raise InputError(f"{name} is of type {array.dtype.name}, and has to be {kind.__name__}")


def extra_shapes(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Returns the shapes of all extra arrays that a network of these arrays can have."""
    extra: dict[str, Shape] = {}
    for name, shape in shapes.items():
        if name.startswith("batch_stats/") and name.endswith("/mean"):
            norm = name.removeprefix("batch_stats/").removesuffix("/mean")
            extra[f"batches_tracked/{norm}/count"] = ()
            extra[f"moving_factors/{norm}/factor"] = (1,)
            conv = _conv_of(norm)
            if f"params/{conv}/kernel" in shapes and f"params/{conv}/bias" not in shapes:
                extra[f"conv_biases/{conv}/bias"] = shape
    return extra


def is_extra(name: str) -> bool:
    """Whether an array of this name is not one of a network's own."""
    return name.split("/")[0] in _EXTRA


def fold_biases(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns arrays with biases and factors folded into the running statistics.

    Of the extra arrays the counts of batches stay. A running mean is rounded once more, by half of
    its last digit, where a factor is not 1 or a bias not 0; all other arrays are unchanged.
    """
    result = {name: array for name, array in arrays.items() if not is_extra(name)}
    for name, array in result.items():
        collection, module, leaf = split(name)
        if collection == "batch_stats":
            norm = "/".join(module)
            factor = arrays.get(f"moving_factors/{norm}/factor", np.ones(1)).item()
            exact = array.astype(np.float64)
            exact = exact / factor if factor else np.zeros_like(exact)  # as Caffe
            if leaf == "mean":
                bias = arrays.get(f"conv_biases/{_conv_of(norm)}/bias", np.zeros(1))
                exact = exact - bias.astype(np.float64)
            result[name] = exact.astype(array.dtype)
    return result | {n: a for n, a in arrays.items() if n.startswith("batches_tracked/")}


def filled(arrays: Mapping[str, np.ndarray], name: str, fill: float) -> np.ndarray:
    """Returns an extra array that is full of one number, of the type of the network's arrays."""
    collection, module, _ = split(name)
    path = "/".join(module)
    if collection == "conv_biases":
        kernel = arrays[f"params/{path}/kernel"]
        return np.full(kernel.shape[-1:], fill, kernel.dtype)
    return np.full((1,), fill, arrays[f"batch_stats/{path}/mean"].dtype)


def _conv_of(norm: str) -> str:
    *path, layer = norm.split("/")
    return "/".join([*path, layer.replace("bn", "conv", 1)])


def _first(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
