"""The networks, one file a family, and the registry that knows them by name."""

from resnet_jax.models.blocks import BottleneckBlock, ResidualBlock, Shortcut
from resnet_jax.models.normalization import BatchNorm
from resnet_jax.models.registry import create_model, list_models, model_options
from resnet_jax.models.resnet import ResNet

__all__ = [
    "BatchNorm",
    "BottleneckBlock",
    "ResNet",
    "ResidualBlock",
    "Shortcut",
    "create_model",
    "list_models",
    "model_options",
]
