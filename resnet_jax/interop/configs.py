"""Forms of networks in JSON: configs of timm, Hugging Face and Keras, and our own metadata.

Configs are read as data: nothing in them is made or run. Metadata have the fields of the network
that its arrays do not show. Which those are follows from the network's dataclass: a field that an
older file lacks has its default.
"""

import collections.abc
import dataclasses
import json
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from flax import linen as nn

from resnet_jax import models
from resnet_jax.errors import InputError
from resnet_jax.interop import preprocessing as preprocessings
from resnet_jax.interop.families import key_map
from resnet_jax.interop.families.key_map import DialectName, Fields
from resnet_jax.interop.formats import ENTRY, Json, read_json
from resnet_jax.interop.weights import Weights, shapes_of
from resnet_jax.models import BottleneckBlock, ResNet

_TIMM_PLAIN = re.compile(r"(tv_)?resnet\d+")
_TIMM_VISIBLE = {"num_classes", "in_chans"}
_HUGGING_FACE_FORM = {"hidden_act": "relu", "downsample_in_first_stage": False}
_DEPTH = ("stage_sizes", "block", "width")
_KERAS_LAYERS = {
    *("InputLayer", "ZeroPadding2D", "Conv2D", "BatchNormalization", "Activation", "MaxPooling2D"),
    *("Add", "GlobalAveragePooling2D", "Dense"),
}
_SHOWN = 60

_NOT_SAVED = {
    *("parent", "name", "dtype", "remat"),
    *("zero_init_residual", "bn_group_size", "bn_axis_name"),
}
"""Fields that decide how a network is run or trained, and not what its arrays mean."""

_LARGEST_COUNT = 2**20
_PADDINGS = (0, 1, 2)
_LARGEST_NUMBER = 1e6
_LONGEST = 16

_Layers = Mapping[str, Mapping[str, Json]]


def fields_of_config(config: Mapping[str, Json] | None, dialect: DialectName) -> Fields:
    """Returns the fields of a network that a `config.json`, or Keras' config, decides."""
    if config is None:
        return {}
    match dialect:
        case "timm":
            _check_timm(config)
            return {}
        case "huggingface":
            for key, value in _HUGGING_FACE_FORM.items():
                if config.get(key, value) != value:
                    raise InputError(f"{key} is {config[key]}; here it is {value}")
            first = config.get("downsample_in_bottleneck", False)
            return {"stride_on": "1x1" if first else "3x3"}
        case "keras":
            return _fields_of_keras(config)
        case _:
            return {}


def configs_of(weights: Weights, dialect: DialectName) -> dict[str, dict[str, Json]]:
    """Returns the configs of a folder from which a library makes a network, by file name."""
    match dialect, weights.network:
        case "timm", ResNet() as network:
            return {"config.json": _timm_config(weights, network)}
        case "huggingface", ResNet() as network:
            return {
                "config.json": _hugging_face_config(weights, network),
                "preprocessor_config.json": preprocessings.to_hugging_face(weights.preprocessing),
            }
        case _:
            return {}


def _check_timm(config: Mapping[str, Json]) -> None:
    name, more = config.get("architecture"), config.get("model_args") or {}
    if not _TIMM_PLAIN.fullmatch(str(name)):
        raise InputError(f"timm's {name} is another network than ResNet-18 to 152")
    if not isinstance(more, dict) or more.keys() - _TIMM_VISIBLE:
        raise InputError(f"timm's {name} was changed by {more}, which is not known here")


def _timm_config(weights: Weights, network: ResNet) -> dict[str, Json]:
    depth = [getattr(network, field) for field in _DEPTH]
    for name in models.list_models():
        other = models.create_model(name)
        if name.startswith("resnet") and [getattr(other, field) for field in _DEPTH] == depth:
            break
    else:
        raise InputError(
            f"timm has no name for stages of {network.stage_sizes} blocks of width "
            f"{network.width}; give NAME.safetensors, which has no config"
        )
    return {
        "architecture": name.removesuffix("_v1_5"),
        "num_classes": network.num_classes,
        "pretrained_cfg": {
            **preprocessings.to_timm(weights.preprocessing),
            "num_classes": network.num_classes,
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }


def _hugging_face_config(weights: Weights, network: ResNet) -> dict[str, Json]:
    bottleneck = network.block is BottleneckBlock
    expansion = 4 if bottleneck else 1
    stages = range(len(network.stage_sizes))
    return {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": weights.channels,
        "num_labels": network.num_classes,
        "embedding_size": network.width,
        "hidden_sizes": [network.width * 2**stage * expansion for stage in stages],
        "depths": list(network.stage_sizes),
        "layer_type": "bottleneck" if bottleneck else "basic",
        **_HUGGING_FACE_FORM,
        "downsample_in_bottleneck": network.stride_on == "1x1",
    }


def _fields_of_keras(config: Mapping[str, Json]) -> Fields:
    """Returns the fields of a residual network that Keras' config of it decides.

    Refuses other networks, and layers such as Lambda, which would run their author's code.
    """
    layers = _layers_of_keras(config)
    norms = [layer for layer in layers.values() if layer["class"] == "BatchNormalization"]
    activations = [layer for layer in layers.values() if layer["class"] == "Activation"]
    if _only("activation", activations) != "relu":
        raise InputError("its activations are not all 'relu'")
    if _of(layers, "conv1_pad", "padding") != [[3, 3], [3, 3]]:
        raise InputError("it does not pad images by 3 pixels on each side")
    padding = _of(layers, "pool1_pad", "padding")
    if padding not in ([[0, 1], [0, 1]], [[1, 1], [1, 1]]):
        raise InputError(f"it pads its max-pool by {str(padding)[:_SHOWN]!a}")
    return {
        "bn_epsilon": _number("epsilon", norms),
        "bn_momentum": _number("momentum", norms),
        "pool_padding": tuple(padding[0]),
        "stride_on": _stride_on(layers),
    }


def _layers_of_keras(config: Mapping[str, Json]) -> _Layers:
    """Returns the fields of each layer by its name, with its class."""
    layers: dict[str, Mapping[str, Json]] = {}
    model: Any = config.get("config")
    described = model.get("layers") if isinstance(model, dict) else None
    if not isinstance(described, list):
        raise InputError("its config describes no model of layers")
    for layer in described:
        match layer:
            case {"class_name": str(kind), "config": dict(fields)} if kind in _KERAS_LAYERS:
                layers[str(fields.get("name"))] = {**fields, "class": kind}
            case {"class_name": str(kind), "config": dict()}:
                raise InputError(
                    f"it has a layer of the class {kind[:_SHOWN]!a}, which no residual network of "
                    "Keras has; nothing was run"
                )
            case _:
                raise InputError("its config describes a layer that is none")
    return layers


def _stride_on(layers: _Layers) -> str:
    if "conv3_block1_1_conv" not in layers:
        return "1x1"  # a single stage has no stride
    match [_of(layers, f"conv3_block1_{i}_conv", "strides") for i in (1, 2)]:
        case [[2, 2], [1, 1]]:
            return "1x1"
        case [[1, 1], [2, 2]]:
            return "3x3"
        case strides:
            raise InputError(f"a block of it has the strides {str(strides)[:_SHOWN]!a}")


def _of(layers: _Layers, name: str, field: str) -> Any:
    if field not in layers.get(name, {}):
        raise InputError(f"its config has no layer {name} with {field}")
    return layers[name][field]


def _number(field: str, layers: Iterable[Mapping[str, Json]]) -> float:
    value = _only(field, layers)
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise InputError(f"its normalisations have the {field} {str(value)[:_SHOWN]!a}")
    return float(value)


def _only(field: str, layers: Iterable[Mapping[str, Json]]) -> Json:
    values = [layer.get(field) for layer in layers]
    if not values or any(value != values[0] for value in values):
        raise InputError(f"its layers do not have one {field}")
    return values[0]


def entry_of(weights: Weights) -> dict[str, str]:
    """Returns the metadata of a file with these weights."""
    network = weights.network
    shown = key_map(type(network), "resnet_jax").infer(shapes_of(weights.arrays))
    fields = {
        field: getattr(network, field)
        for field in _field_types(type(network))
        if field not in shown or shown[field] != getattr(network, field)
    }
    entry = {
        "network": {"module": type(network).__name__, **fields},
        "preprocessing": {
            field: getattr(weights.preprocessing, field) for field in preprocessings.SAVED
        },
    }
    return {ENTRY: json.dumps(entry)}


def read_entry(metadata: Mapping[str, str]) -> dict[str, Json]:
    """Returns the entry of a file; an empty one if it was not written here."""
    return read_json(metadata[ENTRY], f"its metadata {ENTRY}") if ENTRY in metadata else {}


def form_of(entry: Mapping[str, Json]) -> tuple[str | None, Fields]:
    """Returns the name of the network's class and its fields in an entry; None without one."""
    match entry.get("network"):
        case None:
            return None, {}
        case {"module": str(name), **fields}:
            return name, fields
        case network:
            raise InputError(f"its metadata {ENTRY} says of its network {network}")


def checked_fields(saved: Fields, network_class: type[nn.Module]) -> Fields:
    """Returns saved fields; refuses those that the class does not have, and wrong values."""
    types_ = _field_types(network_class)
    if not all(f in types_ and _is_value(v, types_[f]) for f, v in saved.items()):
        raise InputError(f"its metadata {ENTRY} says of its network {saved}")
    return {f: tuple(v) if isinstance(v, list) else v for f, v in saved.items()}


def _field_types(network_class: type[nn.Module]) -> dict[str, Any]:
    """Returns the types of the fields that a file can have: all but those of code and training."""
    return {
        field.name: field.type
        for field in dataclasses.fields(network_class)  # pyrefly: ignore
        if field.name not in _NOT_SAVED and get_origin(field.type) is not collections.abc.Callable
    }


def _is_value(value: object, kind: Any) -> bool:
    """Whether a value may be that of a field; a stranger's file does not decide on huge sizes.

    Words are left to the network, which refuses those that it does not know.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_is_value(value, each) for each in arguments)
    match value:
        case bool() | None:
            return kind is type(value)
        case str():
            return kind is str or origin is Literal
        case int() | float():
            largest = _LARGEST_COUNT if isinstance(value, int) and kind is int else _LARGEST_NUMBER
            return kind in (type(value), float) and 0 <= value <= largest
        case [*values] if origin is tuple and ... not in arguments:  # a pair of paddings
            return len(values) == len(arguments) and all(each in _PADDINGS for each in values)
        case [_, *_] as values if arguments and len(values) <= _LONGEST:
            return all(_is_value(each, arguments[0]) for each in values)
    return False
