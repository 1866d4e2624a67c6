"""Which arrays a network has, and whether these are they."""

import functools
from collections.abc import Callable, Mapping
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from resnet_jax.errors import InputError
from resnet_jax.interop.beside import is_beside
from resnet_jax.interop.families import Shapes, family_of
from resnet_jax.interop.naming import Place

_SHOWN = 3


def network_shapes(network: nn.Module, channels: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array of a network, by our name.

    Args:
      network: The network.
      channels: Channels of its images.

    Raises:
      InputError: It is no network that is known here, or cannot be made.
    """
    side = family_of(network).side
    images = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    init = functools.partial(network.init, train=False)
    try:
        variables = jax.eval_shape(init, jax.random.key(0), images)
    except Exception as error:  # a file can say whatever it likes of a network
        reason = str(error).strip().splitlines() or [repr(error)]
        raise InputError(f"its network cannot be made: {reason[0]}") from error
    # The parameters first, which is what a message about differences should begin with.
    tree = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    flat = cast(dict[str, jax.ShapeDtypeStruct], traverse_util.flatten_dict(tree, sep="/"))
    return {name: leaf.shape for name, leaf in flat.items()}


def check_fit(place: Callable[[str], Place | None], shapes: Shapes, expected: Shapes) -> None:
    """Compares a set of arrays with a network's.

    Args:
      place: Where their library has an array, by our name.
      shapes: Their shapes.
      expected: Those of the network, by our name, and of what there may be beside it.

    Raises:
      InputError: They differ; the message has the first names and shapes.
    """
    wanted = {
        there.name: (name, there.shape_there(shape))
        for name, shape in expected.items()
        if (there := place(name)) is not None
    }
    missing = [
        f"{theirs} {shape}"
        for theirs, (name, shape) in wanted.items()
        if theirs not in shapes and not is_beside(name)
    ]
    unexpected = [f"{name} {shape}" for name, shape in sorted(shapes.items()) if name not in wanted]
    different = [
        f"{name} is {shapes[name]} where {shape} fits"
        for name, (_, shape) in wanted.items()
        if name in shapes and shapes[name] != shape
    ]
    parts = {"missing": missing, "unexpected": unexpected, "of other shapes": different}
    wrong = [f"{kind}: {_first(found)}" for kind, found in parts.items() if found]
    if wrong:
        raise InputError(f"it does not fit the network that it looks most like; {'; '.join(wrong)}")


def check_types(arrays: Mapping[str, np.ndarray]) -> None:
    """Compares types of arrays with what a network has.

    Args:
      arrays: The arrays by our name.

    Raises:
      InputError: Something that is learned is not of floating-point numbers, or a count not of
        integers.
    """
    for name, array in arrays.items():
        kind = jnp.integer if name.startswith("batches_tracked/") else jnp.floating
        if not jnp.issubdtype(array.dtype, kind):
            raise InputError(f"{name} is of type {array.dtype.name}, and has to be {kind.__name__}")


def _first(found: list[str]) -> str:
    rest = len(found) - _SHOWN
    return ", ".join(found[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
