"""Forms of networks in JSON: configs of timm, Hugging Face and Keras, and our own metadata.

Configs are read as data: nothing in them is made or run. Metadata have the fields of the network
that its arrays do not show. Which those are follows from the network's dataclass: a field that an
older file lacks has its default.
"""

import collections.abc
import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, get_origin

from flax import linen as nn

from resnet_jax import models
from resnet_jax.errors import InputError
from resnet_jax.interop import preprocessing as preprocessings
from resnet_jax.interop.families import key_map
from resnet_jax.interop.families.key_map import DialectName, Fields
from resnet_jax.interop.formats import ENTRY, Json, read_json, refusing
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
_KERAS_STRIDES = {"[]": "1x1", "[[2, 2], [1, 1]]": "1x1", "[[1, 1], [2, 2]]": "3x3"}

_NOT_SAVED = {
    *("parent", "name", "dtype", "remat", "lowering"),
    *("zero_init_residual", "bn_group_size", "bn_axis_name"),
}
"""Fields that decide how a network is run or trained, and not what its arrays mean."""


def fields_of_config(config: Mapping[str, Json] | None, dialect: DialectName) -> Fields:
    """Returns the fields of a network that a `config.json`, or Keras' config, decides."""
    if config is None:
        return {}
    if dialect == "timm":
        _check_timm(config)
    if dialect == "huggingface":
        for key, value in _HUGGING_FACE_FORM.items():
            if config.get(key, value) != value:
                raise InputError(f"{key} is {config[key]}; here it is {value}")
        return {"stride_on": "1x1" if config.get("downsample_in_bottleneck") else "3x3"}
    return _fields_of_keras(config) if dialect == "keras" else {}


def configs_of(weights: Weights, dialect: DialectName) -> dict[str, dict[str, Json]]:
    """Returns the configs of a folder from which a library makes a network, by file name."""
    network = weights.network
    if dialect == "timm" and isinstance(network, ResNet):
        return {"config.json": _timm_config(weights, network)}
    if dialect == "huggingface" and isinstance(network, ResNet):
        return {
            "config.json": _hugging_face_config(weights, network),
            "preprocessor_config.json": preprocessings.to_hugging_face(weights.preprocessing),
        }
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
    first = network.width * (4 if bottleneck else 1)
    return {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": weights.channels,
        "num_labels": network.num_classes,
        "embedding_size": network.width,
        "hidden_sizes": [first * 2**i for i in range(len(network.stage_sizes))],
        "depths": list(network.stage_sizes),
        "layer_type": "bottleneck" if bottleneck else "basic",
        **_HUGGING_FACE_FORM,
        "downsample_in_bottleneck": network.stride_on == "1x1",
    }


def _fields_of_keras(config: Any) -> Fields:
    """Returns the fields of a residual network that Keras' config of it decides.

    Refuses other networks, and layers such as Lambda, which would run their author's code.
    """
    with refusing("its config is not of a residual network of Keras"):
        described = config["config"]["layers"]
        if others := {layer["class_name"] for layer in described} - _KERAS_LAYERS:
            raise ValueError(f"layers of the classes {sorted(others)}; nothing was run")
        layers = {layer["config"]["name"]: layer["config"] for layer in described}
        norms = {
            (layer["config"]["epsilon"], layer["config"]["momentum"])
            for layer in described
            if layer["class_name"] == "BatchNormalization"
        }
        if len(norms) != 1:
            raise ValueError(f"normalisations of (epsilon, momentum) {sorted(norms)}")
        ((epsilon, momentum),) = norms
        activations = {
            layer["config"]["activation"]
            for layer in described
            if layer["class_name"] == "Activation"
        }
        padding, pool_padding = (layers[name]["padding"] for name in ("conv1_pad", "pool1_pad"))
        strided = ("conv3_block1_1_conv", "conv3_block1_2_conv")  # missing with a single stage
        strides = str([layers[name]["strides"] for name in strided if name in layers])
        if activations != {"relu"} or padding != [[3, 3], [3, 3]]:
            raise ValueError(f"activations {activations} and a first padding of {padding}")
        if pool_padding not in ([[0, 1], [0, 1]], [[1, 1], [1, 1]]):
            raise ValueError(f"a max-pool padded by {pool_padding}")
        if strides not in _KERAS_STRIDES or not 0 < epsilon < 1 or not 0 < momentum < 1:
            raise ValueError(f"strides {strides}, epsilon {epsilon} and momentum {momentum}")
    return {
        "bn_epsilon": float(epsilon),
        "bn_momentum": float(momentum),
        "pool_padding": tuple(pool_padding[0]),
        "stride_on": _KERAS_STRIDES[strides],
    }


def entry_of(weights: Weights) -> dict[str, str]:
    """Returns the metadata of a file with these weights."""
    network = weights.network
    shown = key_map(type(network), "resnet_jax").infer(shapes_of(weights.arrays))
    fields = {
        field: getattr(network, field)
        for field in _saved_fields(type(network))
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
    """Returns saved fields of JSON for a network's class, which checks their values itself."""
    fields = {f: tuple(v) if isinstance(v, list) else v for f, v in saved.items()}
    values = [x for v in fields.values() for x in (v if isinstance(v, tuple) else (v,))]
    known = fields.keys() <= set(_saved_fields(network_class))
    if not known or any(isinstance(value, list | dict) for value in values):
        raise InputError(f"its metadata {ENTRY} says of its network {saved}")
    return fields


def _saved_fields(network_class: type[nn.Module]) -> list[str]:
    """Returns the fields that a file can have: all but those of code and training."""
    return [
        field.name
        for field in dataclasses.fields(network_class)  # pyrefly: ignore
        if field.name not in _NOT_SAVED and get_origin(field.type) is not collections.abc.Callable
    ]
