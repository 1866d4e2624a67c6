"""Deep Residual Learning for Image Recognition (arXiv 1512.03385), in JAX and Flax.

The networks are here; `resnet_jax.data`, `resnet_jax.training` and `resnet_jax.evaluation` are what
`train.py` and `evaluate.py` are made of.
"""

from resnet_jax.analysis import summarize
from resnet_jax.errors import InputError
from resnet_jax.interop import load_pretrained, save_pretrained
from resnet_jax.models import (
    BatchNorm,
    BottleneckBlock,
    ResidualBlock,
    ResNet,
    create_model,
    features,
    list_models,
)

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
