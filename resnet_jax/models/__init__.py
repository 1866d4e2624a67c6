"""The networks, one file for each family, and the registry of their names."""

from resnet_jax.models.alexnet import AlexNet, ZFNet
from resnet_jax.models.blocks import BottleneckBlock, ResidualBlock, Shortcut
from resnet_jax.models.bn_inception import BNInception
from resnet_jax.models.googlenet import GoogLeNet
from resnet_jax.models.lenet import LeNet5
from resnet_jax.models.lowering import compiler_options, plain_form
from resnet_jax.models.normalization import BatchNorm, apply_folded
from resnet_jax.models.prelu_net import PReLUNet
from resnet_jax.models.registry import (
    create_model,
    features,
    image_shape,
    list_models,
    model_options,
    option_types,
    variable_shapes,
)
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.vgg import VGG

__all__ = [
    "VGG",
    "AlexNet",
    "BNInception",
    "BatchNorm",
    "BottleneckBlock",
    "GoogLeNet",
    "LeNet5",
    "PReLUNet",
    "ResNet",
    "ResidualBlock",
    "Shortcut",
    "ZFNet",
    "apply_folded",
    "compiler_options",
    "create_model",
    "features",
    "image_shape",
    "list_models",
    "model_options",
    "option_types",
    "plain_form",
    "variable_shapes",
]
