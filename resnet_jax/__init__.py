"""Deep Residual Learning for Image Recognition (arXiv 1512.03385), in JAX and Flax.

The networks are here; `resnet_jax.data`, `resnet_jax.training` and `resnet_jax.evaluation` are what
`train.py` and `evaluate.py` are made of.
"""

import importlib
from typing import TYPE_CHECKING

from resnet_jax.errors import InputError
from resnet_jax.models import (
    BatchNorm,
    BottleneckBlock,
    ResidualBlock,
    ResNet,
    create_model,
    features,
    list_models,
)

if TYPE_CHECKING:
    from resnet_jax.analysis import summarize
    from resnet_jax.interop import load_pretrained, save_pretrained

__version__ = "0.1.0"

__all__ = [
    "BatchNorm",
    "BottleneckBlock",
    "InputError",
    "ResNet",
    "ResidualBlock",
    "create_model",
    "features",
    "list_models",
    "load_pretrained",
    "save_pretrained",
    "summarize",
]

_ROOMS = {"summarize": "analysis", "load_pretrained": "interop", "save_pretrained": "interop"}
"""The rooms of what most programs do not need: they are imported at the first use."""


def __getattr__(name: str) -> object:
    """Returns what is imported at its first use: a function of `_ROOMS`, or a room of theirs."""
    if name in _ROOMS:
        return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
    if name in _ROOMS.values():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
