"""Residual networks in the names of torchvision, timm, Hugging Face, Keras, Caffe and our own.

Keras and Caffe have the first form (v1) of the networks with 50, 101 and 152 layers. Both feed them
BGR images, so the first kernel is reversed: here it reads RGB. All convolutions of Keras have
biases, in Caffe only the first one of the network with 50 layers. A normalisation is two layers in
Caffe: BatchNorm has the mean, the variance and the factor that both are divided by, Scale the rest;
blobs have no names but their numbers, so `conv1/0` is a kernel.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from resnet_jax.errors import InputError
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
from resnet_jax.models import BottleneckBlock, ResidualBlock, ResNet

_KERNEL = "params/stem/conv/kernel"
_PLACE = re.compile(r"(?:stem|stage(\d+)/block(\d+)(?:/shortcut)?)/(conv|bn)(\d?)")
_V1_5 = {
    "stem": "imagenet",
    "shortcut": "B",
    "stride_on": "3x3",
    "pool_padding": (1, 1),
    "output_stride": None,
    "bn_momentum": 0.9,
    "bn_epsilon": 1e-5,
}
_V1 = {**_V1_5, "stride_on": "1x1"}


def _fields(shapes: OurShapes) -> Fields:
    """Returns the fields of a residual network that its arrays show."""
    stage_sizes = shapes.stage_sizes("params/stage{}/block{}/conv1/kernel")
    side, _, _, width = shapes.require(_KERNEL, 4)
    bottleneck = shapes.get("params/stage1/block1/conv3/kernel") is not None
    return {
        "stage_sizes": stage_sizes,
        "block": BottleneckBlock if bottleneck else ResidualBlock,
        "width": width,
        "num_classes": shapes.require("params/head/kernel", 2)[1],
        "stem": "cifar" if side == 3 else "imagenet",
    }


def _place(name: str) -> tuple[int, int, str, int] | None:
    """Returns stage, block, kind and number of a layer by the name of one of its arrays.

    The stem is in stage 0, a layer of a shortcut has the number 0; None for the head.
    """
    path = "/".join(split(name)[1])
    if path == "head":
        return None
    match = _PLACE.fullmatch(path)
    if match is None:
        raise InputError(f"other libraries have no array as {name}")
    stage, block, kind, number = match.groups()
    return int(stage or 0), int(block or 0), kind, int(number or 0)


# torchvision, timm and Hugging Face

_HUGGING_FACE_LAYERS = {"conv": "convolution", "bn": "normalization"}


def _torchvision_key(name: str) -> Key | None:
    match _place(name):
        case None:
            path = "fc"
        case 0, _, kind, _:
            path = f"{kind}1"
        case stage, block, kind, 0:
            path = f"layer{stage}.{block - 1}.downsample.{0 if kind == 'conv' else 1}"
        case stage, block, kind, number:
            path = f"layer{stage}.{block - 1}.{kind}{number}"
    return torch_key(name, path)


def _hugging_face_key(name: str) -> Key | None:
    match _place(name):
        case None:
            path = "classifier.1"
        case 0, _, kind, _:
            path = f"resnet.embedder.embedder.{_HUGGING_FACE_LAYERS[kind]}"
        case stage, block, kind, number:
            layer = f"layer.{number - 1}" if number else "shortcut"
            path = f"resnet.encoder.stages.{stage - 1}.layers.{block - 1}.{layer}"
            path += f".{_HUGGING_FACE_LAYERS[kind]}"
    return torch_key(name, path)


# Keras

_KERAS_LEAVES = {
    "kernel": "kernel",
    "scale": "gamma",
    "mean": "moving_mean",
    "var": "moving_variance",
}


def keras_layers(network: ResNet) -> Iterator[str]:
    """Yields the layers of a network that have arrays, in the order in which Keras has them."""
    yield from ("conv1_conv", "conv1_bn")
    for stage, blocks in enumerate(network.stage_sizes, 2):
        for block in range(1, blocks + 1):
            # By the number of layers that are still to come, so that the two ends alternate.
            ends = ("0_conv", "3_conv", "0_bn", "3_bn") if block == 1 else ("3_conv", "3_bn")
            for layer in ("1_conv", "1_bn", "2_conv", "2_bn", *ends):
                yield f"conv{stage}_block{block}_{layer}"
    yield "predictions"


def _keras_key(name: str) -> Key | None:
    collection, _, leaf = split(name)
    if collection in ("batches_tracked", "moving_factors"):
        return None
    match _place(name):
        case None:
            layer = "predictions"
        case 0, _, kind, _:
            layer = f"conv1_{kind}"
        case stage, block, kind, number:
            layer = f"conv{stage + 1}_block{block}_{number}_{kind}"
    shifts = collection == "params" and layer.endswith("_bn")
    their_leaf = _KERAS_LEAVES.get(leaf) or ("beta" if shifts else "bias")
    return Key(f"{layer}/{their_leaf}", reversed_inputs=name == _KERNEL)


# Caffe

_BLOBS = {"kernel": 0, "mean": 0, "var": 1, "factor": 2, "scale": 0, "bias": 1}
_STEM_BIAS = "conv_biases/stem/conv/bias"
_RESNET_50 = (3, 4, 6, 3)
_LETTERED = 3
"""Stages with more blocks number them in the networks that are deeper than ResNet-50."""


def _caffe_key(network: ResNet, name: str) -> Key | None:
    deep = max(network.stage_sizes) > max(_RESNET_50)
    numbered = {i for i, size in enumerate(network.stage_sizes, 1) if deep and size > _LETTERED}
    return _caffe_key_of(name, numbered)


def _caffe_key_of(name: str, numbered: set[int]) -> Key | None:
    collection, _, leaf = split(name)
    if collection == "batches_tracked" or (collection == "conv_biases" and name != _STEM_BIAS):
        return None
    norm = "scale" if collection == "params" and leaf in ("scale", "bias") else "bn"
    match _place(name):
        case None:
            layer = "fc1000"
        case 0, _, kind, _:
            layer = "conv1" if kind == "conv" else f"{norm}_conv1"
        case stage, block, kind, number:
            letter = chr(ord("a") + block - 1)
            if stage in numbered and block > 1:
                letter = f"b{block - 1}"
            branch = f"2{'abc'[number - 1]}" if number else "1"
            layer = f"{'res' if kind == 'conv' else norm}{stage + 1}{letter}_branch{branch}"
    return Key(f"{layer}/{_BLOBS[leaf]}", channels_first=True, reversed_inputs=name == _KERNEL)


def _caffe_fields(shapes: Shapes) -> Fields:
    matches = (re.fullmatch(r"res(\d+)b1_branch2a/0", name) for name in shapes)
    numbered = {int(match[1]) - 1 for match in matches if match is not None}
    return _fields(OurShapes(shapes, lambda name: _caffe_key_of(name, numbered)))


def _caffe_fill(network: ResNet, name: str) -> float | None:
    if name.startswith("moving_factors/"):
        return 1.0
    return 0.0 if name == _STEM_BIAS and network.stage_sizes == _RESNET_50 else None


def _of_bottlenecks(library: str, key: Callable[[ResNet, str], Key | None]):
    """Returns a key of a library that has no networks of basic blocks."""

    def checked(network: ResNet, name: str) -> Key | None:
        if network.block is not BottleneckBlock:
            raise InputError(f"{library} has residual networks of bottleneck blocks alone")
        return key(network, name)

    return checked


KEY_MAPS: Mapping[DialectName, KeyMap] = {
    "torchvision": fixed_names("conv1.weight", _torchvision_key, _fields, _V1_5),
    "timm": fixed_names("conv1.weight", _torchvision_key, _fields, _V1_5),
    "huggingface": fixed_names(
        "resnet.embedder.embedder.convolution.weight", _hugging_face_key, _fields, _V1_5
    ),
    "keras": KeyMap(
        typical="conv1_conv/kernel",
        infer=lambda shapes: _fields(OurShapes(shapes, _keras_key)),
        key=_of_bottlenecks("keras", lambda network, name: _keras_key(name)),
        form={**_V1, "bn_momentum": 0.99, "bn_epsilon": 1.001e-5},
        fill=lambda network, name: 0.0 if name.startswith("conv_biases/") else None,
    ),
    "caffe": KeyMap(
        typical="conv1/0",
        infer=_caffe_fields,
        key=_of_bottlenecks("caffe", _caffe_key),
        form={**_V1, "pool_padding": (0, 1)},
        fill=_caffe_fill,
    ),
    "resnet_jax": own_names(_fields, _V1_5),
}
