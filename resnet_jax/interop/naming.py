"""How each library names and lays out what a residual network learns.

Names of ours are paths such as `params/stage1/block2/conv1/kernel`, with the collections `params`,
`batch_stats` and `batches_tracked`; the last holds PyTorch's `num_batches_tracked` as
`batches_tracked/stem/bn/count`, which no network here reads, so that nothing is lost.
Kernels are [height, width, in, out] here and [out, in, height, width] there, linear ones [in, out]
and [out, in]. PyTorch's running variances are unbiased where those of `BatchNorm` are biased; they
are estimates of the same and taken over as they are: to evaluate, a network has to use the numbers
that it was saved with.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Shaped

DialectName = Literal["torchvision", "timm", "huggingface", "resnet_jax"]

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "count": "num_batches_tracked",
}
_HUGGING_FACE_LAYERS = {"conv": "convolution", "bn": "normalization"}
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}
_TO_OURS = {4: (2, 3, 1, 0), 2: (1, 0)}


def foreign_name(dialect: DialectName, name: str) -> str:
    """Returns what a library calls the array of this name.

    Args:
      dialect: The library; torchvision and timm have the same names.
      name: A name of ours.
    """
    if dialect == "resnet_jax":
        return name
    _, *module, leaf = name.split("/")
    path = _hugging_face(module) if dialect == "huggingface" else _torchvision(module)
    return f"{path}.{_LEAVES[leaf]}"


def foreign_shape(dialect: DialectName, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape there of an array that has this shape here."""
    if dialect == "resnet_jax":
        return tuple(shape)
    return tuple(shape[axis] for axis in _order(_TO_TORCH, len(shape)))


def to_foreign(dialect: DialectName, array: Shaped[np.ndarray, "..."]) -> np.ndarray:
    """Returns an array of ours as a library lays it out; a view."""
    return array if dialect == "resnet_jax" else array.transpose(_order(_TO_TORCH, array.ndim))


def to_ours(dialect: DialectName, array: Shaped[np.ndarray, "..."]) -> np.ndarray:
    """Returns an array of a library as it is laid out here; a view."""
    return array if dialect == "resnet_jax" else array.transpose(_order(_TO_OURS, array.ndim))


def _order(orders: Mapping[int, tuple[int, ...]], dimensions: int) -> tuple[int, ...]:
    return orders.get(dimensions, tuple(range(dimensions)))


def _torchvision(module: Sequence[str]) -> str:
    match module:
        case ["stem", layer]:
            return f"{layer}1"
        case [stage, block, *branch, layer]:
            if branch:
                layer = {"conv": "downsample.0", "bn": "downsample.1"}[layer]
            return f"layer{_number(stage)}.{_number(block) - 1}.{layer}"
        case _:
            return "fc"


def _hugging_face(module: Sequence[str]) -> str:
    match module:
        case ["stem", layer]:
            return f"resnet.embedder.embedder.{_HUGGING_FACE_LAYERS[layer]}"
        case [stage, block, *branch, layer]:
            kind = _HUGGING_FACE_LAYERS[layer.rstrip("123456789")]
            place = "shortcut" if branch else f"layer.{_number(layer) - 1}"
            layers = f"resnet.encoder.stages.{_number(stage) - 1}.layers.{_number(block) - 1}"
            return f"{layers}.{place}.{kind}"
        case _:
            return "classifier.1"


def _number(name: str) -> int:
    return int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))
