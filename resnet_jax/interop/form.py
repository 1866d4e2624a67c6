"""Which network a set of arrays belongs to."""

import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from resnet_jax.errors import InputError
from resnet_jax.interop.naming import DialectName, foreign_name, foreign_shape
from resnet_jax.models import BottleneckBlock, ResidualBlock, ResNet

Shape = tuple[int, ...]

INVISIBLE = (
    *("shortcut", "stride_on", "pool_padding", "output_stride"),
    *("bn_momentum", "bn_epsilon"),
)
"""Fields of a network that change what it computes and can't be told from its arrays."""

FOREIGN_FORM: dict[str, Any] = {
    "stem": "imagenet",
    "shortcut": "B",
    "stride_on": "3x3",
    "pool_padding": (1, 1),
    "output_stride": None,
    "bn_momentum": 0.9,
    "bn_epsilon": 1e-5,
}
"""The networks of torchvision, timm and Hugging Face, unless they say otherwise."""

_MOST_STAGES = 16
_SHOWN = 3

_STEM = "params/stem/conv/kernel"
_HEAD = "params/head/kernel"


def recognise_dialect(names: Iterable[str]) -> DialectName:
    """Returns whose names these are; torchvision's are timm's too.

    Raises:
      InputError: They are nobody's.
    """
    names = set(names)
    dialects: tuple[DialectName, ...] = ("torchvision", "huggingface", "resnet_jax")
    for dialect in dialects:
        if foreign_name(dialect, _STEM) in names:
            return dialect
    stems = ", ".join(foreign_name(dialect, _STEM) for dialect in dialects)
    shown = ", ".join(sorted(names)[:_SHOWN])
    raise InputError(f"it is no residual network: it has none of {stems}, but {shown}")


def recognise_form(dialect: DialectName, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Returns those fields of a network that its arrays show.

    Args:
      dialect: Whose names they have.
      shapes: Their shapes.

    Raises:
      InputError: They are no residual network's.
    """

    def shape(name: str, dimensions: int) -> Shape:
        theirs = foreign_name(dialect, name)
        if len(shapes.get(theirs, ())) != dimensions:
            there = shapes.get(theirs, "not there")
            raise InputError(f"{theirs} is {there}, and has to have {dimensions} dimensions")
        return shapes[theirs]

    def blocks(stage: int) -> int:
        names = (
            foreign_name(dialect, f"params/stage{stage}/block{block}/conv1/kernel")
            for block in itertools.count(1)
        )
        return sum(1 for _ in itertools.takewhile(shapes.__contains__, names))

    last = foreign_name(dialect, "params/stage1/block1/conv3/kernel")
    stage_sizes = tuple(
        itertools.takewhile(lambda size: size > 0, map(blocks, range(1, _MOST_STAGES + 1)))
    )
    if not stage_sizes:
        missing = foreign_name(dialect, "params/stage1/block1/conv1/kernel")
        raise InputError(f"it is no residual network: it has no {missing}")
    # Kernels are [h, w, in, out] here; the side of the window is in the middle of both layouts.
    order = foreign_shape(dialect, range(4))
    stem = dict(zip(order, shape(_STEM, 4), strict=True))
    head = dict(zip(foreign_shape(dialect, range(2)), shape(_HEAD, 2), strict=True))
    return {
        "stage_sizes": stage_sizes,
        "block": BottleneckBlock if last in shapes else ResidualBlock,
        "width": stem[3],
        "num_classes": head[1],
        "stem": "cifar" if stem[0] == 3 else "imagenet",
    }


def input_channels(dialect: DialectName, shapes: Mapping[str, Shape]) -> int:
    """Returns the channels of a network's images; 3 where that cannot be told."""
    stem = shapes.get(foreign_name(dialect, _STEM), ())
    return stem[foreign_shape(dialect, range(4)).index(2)] if len(stem) == 4 else 3


def expected_shapes(network: ResNet, channels: int) -> Mapping[str, Shape]:
    """Returns the shape of each array of a network, by our name.

    `batches_tracked`, which has a number for each normalisation, is among them.

    Args:
      network: The network.
      channels: Channels of its images.
    """
    images = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    init = functools.partial(network.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)
    # The parameters first, which is what a message about differences should begin with.
    tree = {name: variables[name] for name in ("params", "batch_stats")}
    flat = cast(dict[str, jax.ShapeDtypeStruct], traverse_util.flatten_dict(tree, sep="/"))
    shapes = {name: leaf.shape for name, leaf in flat.items()}
    return shapes | {_count_of(name): () for name in shapes if name.endswith("/mean")}


def check_fit(
    dialect: DialectName, shapes: Mapping[str, Shape], expected: Mapping[str, Shape]
) -> None:
    """Compares a set of arrays with a network's.

    Args:
      dialect: Whose names they have.
      shapes: Their shapes.
      expected: What `expected_shapes` returned.

    Raises:
      InputError: They differ; the message has the first names and shapes. The numbers of
        `batches_tracked` may be missing.
    """
    wanted = {
        foreign_name(dialect, name): (name, foreign_shape(dialect, shape))
        for name, shape in expected.items()
    }
    missing = [
        f"{theirs} {shape}"
        for theirs, (name, shape) in wanted.items()
        if theirs not in shapes and not name.startswith("batches_tracked/")
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


def _count_of(mean: str) -> str:
    module = mean.removeprefix("batch_stats/").removesuffix("/mean")
    return f"batches_tracked/{module}/count"


def _first(found: list[str]) -> str:
    rest = len(found) - _SHOWN
    return ", ".join(found[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
