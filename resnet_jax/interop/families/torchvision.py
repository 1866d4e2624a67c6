"""AlexNet, VGG networks and GoogLeNet in the names of torchvision and in our own.

torchvision numbers layers through convolutions, normalisations, rectifiers and pools alike. Its
`transform_input=True`, which the published weights of GoogLeNet expect, changes images that were
normalised with ImageNet's numbers into ones of mean 0.5 and deviation 0.5: here this is part of the
preprocessing, and the network takes its input unchanged.
"""

import functools
from collections.abc import Mapping

import numpy as np

from resnet_jax.interop.families.key_map import (
    DialectName,
    Fields,
    Key,
    KeyMap,
    OurShapes,
    Shapes,
    fixed_names,
    own_names,
    split,
    torch_key,
)

# AlexNet

_ALEXNET_MODULES = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "hidden/fc1": "classifier.1",
    "hidden/fc2": "classifier.4",
    "head": "classifier.6",
}


def _alexnet_key(name: str) -> Key | None:
    path = "/".join(split(name)[1])
    return torch_key(name, _ALEXNET_MODULES[path], side=6 if path == "hidden/fc1" else 0)


def _alexnet_fields(shapes: OurShapes) -> Fields:
    kernels = [shapes.require(f"params/conv{i}/kernel", 4) for i in range(1, 6)]
    filters = tuple(kernel[3] for kernel in kernels)
    return {
        "filters": filters,
        "groups": max(filters[0] // kernels[1][2], 1),
        "hidden_units": shapes.require("params/hidden/fc2/kernel", 2)[1],
        "num_classes": shapes.require("params/head/kernel", 2)[1],
    }


ALEXNET: Mapping[DialectName, KeyMap] = {
    "torchvision": fixed_names(
        "classifier.1.weight",
        _alexnet_key,
        _alexnet_fields,
        {"form": "torchvision", "dropout_rate": 0.5},
    ),
    "resnet_jax": own_names(_alexnet_fields),
}

# VGG networks

_VGG_FIRST = "params/conv1_1/kernel"
_VGG_MODULES = {"hidden/fc1": "classifier.0", "hidden/fc2": "classifier.3", "head": "classifier.6"}
_MOST_LAYERS = 256


def _vgg_key(stage_sizes: tuple[int, ...], batch_norm: bool, name: str) -> Key | None:
    path = "/".join(split(name)[1])
    if path in _VGG_MODULES:
        return torch_key(name, _VGG_MODULES[path], side=7 if path == "hidden/fc1" else 0)
    stage, layer = map(int, path.lstrip("bcnov").split("_"))
    before = sum(stage_sizes[: stage - 1]) + layer - 1
    index = before * (3 if batch_norm else 2) + stage - 1
    return torch_key(name, f"features.{index + path.startswith('bn')}")


def _vgg_fields_of_torchvision(shapes: Shapes) -> Fields:
    batch_norm = "features.1.running_mean" in shapes
    names = ((i, f"features.{i}.weight") for i in range(_MOST_LAYERS))
    convolutions = [i for i, name in names if len(shapes.get(name, ())) == 4]
    pools = np.flatnonzero(np.diff(convolutions) > (3 if batch_norm else 2)) + 1
    stage_sizes = tuple(map(len, np.split(convolutions, pools)))
    key = functools.partial(_vgg_key, stage_sizes, batch_norm)
    widths = _vgg_widths(OurShapes(shapes, key))
    return {"stage_sizes": stage_sizes, "batch_norm": batch_norm, **widths}


def _vgg_fields(shapes: OurShapes) -> Fields:
    stage_sizes = shapes.stage_sizes("params/conv{}_{}/kernel")
    batch_norm = shapes.get("batch_stats/bn1_1/mean") is not None
    return {"stage_sizes": stage_sizes, "batch_norm": batch_norm, **_vgg_widths(shapes)}


def _vgg_widths(shapes: OurShapes) -> Fields:
    return {
        "width": shapes.require(_VGG_FIRST, 4)[3],
        "hidden_units": shapes.require("params/hidden/fc2/kernel", 2)[1],
        "num_classes": shapes.require("params/head/kernel", 2)[1],
    }


VGG_NETWORK: Mapping[DialectName, KeyMap] = {
    "torchvision": KeyMap(
        typical="classifier.0.weight",
        infer=_vgg_fields_of_torchvision,
        key=lambda network, name: _vgg_key(network.stage_sizes, network.batch_norm, name),
        form={"dropout_rate": 0.5, "bn_momentum": 0.9, "bn_epsilon": 1e-5},
    ),
    "resnet_jax": own_names(_vgg_fields),
}

# GoogLeNet

_GOOGLENET_FIRST = "params/conv1/conv/kernel"
_AUXILIARY = "params/auxiliary1/fc/kernel"
_GOOGLENET_MODULES = {
    "conv1": "conv1",
    "conv2_reduce": "conv2",
    "conv2": "conv3",
    "head": "fc",
    "auxiliary1": "aux1",
    "auxiliary2": "aux2",
}
_INCEPTION_MODULES = {
    "conv1x1": "branch1",
    "conv3x3_reduce": "branch2.0",
    "conv3x3": "branch2.1",
    "conv5x5_reduce": "branch3.0",
    "conv5x5": "branch3.1",
    "pool_proj": "branch4.1",
    "fc": "fc1",
    "head": "fc2",
}


def _googlenet_key(name: str) -> Key | None:
    first, *inner = split(name)[1]
    path = [_GOOGLENET_MODULES.get(first, first)]
    path += [_INCEPTION_MODULES.get(part, part) for part in inner]
    return torch_key(name, ".".join(path), side=4 if inner == ["fc"] else 0)


def _googlenet_fields(shapes: OurShapes) -> Fields:
    fields = {
        "width": shapes.require(_GOOGLENET_FIRST, 4)[3],
        "num_classes": shapes.require("params/head/kernel", 2)[1],
        "auxiliary_heads": shapes.get(_AUXILIARY) is not None,
    }
    if fields["auxiliary_heads"]:
        fields["auxiliary_units"] = shapes.require(_AUXILIARY, 2)[1]
    return fields


GOOGLENET: Mapping[DialectName, KeyMap] = {
    "torchvision": fixed_names(
        "conv1.conv.weight",
        _googlenet_key,
        _googlenet_fields,
        {
            "form": "torchvision",
            "dropout_rate": 0.2,
            "auxiliary_dropout_rate": 0.7,
            "bn_momentum": 0.9,
            "bn_epsilon": 1e-3,
        },
    ),
    "resnet_jax": own_names(_googlenet_fields),
}
