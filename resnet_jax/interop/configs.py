"""What timm, Hugging Face and Keras say of a network in a config, read and written."""

import re
from collections.abc import Mapping
from typing import Any

from resnet_jax import models
from resnet_jax.errors import InputError
from resnet_jax.interop import preprocessing as preprocessings
from resnet_jax.interop.keras_config import fields_of_keras
from resnet_jax.interop.naming import DialectName
from resnet_jax.interop.preprocessing import Json
from resnet_jax.interop.weights import Weights
from resnet_jax.models import BottleneckBlock, ResNet

_TIMM_PLAIN = re.compile(r"(tv_)?resnet\d+")
_TIMM_VISIBLE = {"num_classes", "in_chans"}
_HUGGING_FACE_FORM = {"hidden_act": "relu", "downsample_in_first_stage": False}


def said_by_config(config: Mapping[str, Json] | None, dialect: DialectName) -> dict[str, Any]:
    """Returns the fields of a network that a library's config decides.

    Args:
      config: A `config.json`, or what Keras says of a model.
      dialect: The library.

    Raises:
      InputError: It is another network than those here.
    """
    if config is None:
        return {}
    if dialect == "timm":
        name, more = config.get("architecture"), config.get("model_args") or {}
        if not _TIMM_PLAIN.fullmatch(str(name)):
            raise InputError(f"timm's {name} is another network than ResNet-18 to 152")
        if not isinstance(more, dict) or more.keys() - _TIMM_VISIBLE:
            raise InputError(f"timm's {name} was changed by {more}, which is not known here")
    if dialect == "huggingface":
        for key, value in _HUGGING_FACE_FORM.items():
            if config.get(key, value) != value:
                raise InputError(f"{key} is {config[key]}; here it is {value}")
        first = config.get("downsample_in_bottleneck", False)
        return {"stride_on": "1x1" if first else "3x3"}
    if dialect == "keras":
        return fields_of_keras(config)
    return {}


def configs_of(weights: Weights, dialect: DialectName) -> dict[str, dict[str, Json]]:
    """Returns the configs of a folder from which a library makes a network, by their file's name.

    Raises:
      InputError: The library cannot make this one.
    """
    match dialect:
        case "timm":
            return {"config.json": _timm_config(weights, _resnet(weights))}
        case "huggingface":
            return {
                "config.json": _hugging_face_config(weights, _resnet(weights)),
                "preprocessor_config.json": preprocessings.to_hugging_face(weights.preprocessing),
            }
        case _:
            return {}


def _resnet(weights: Weights) -> ResNet:
    assert isinstance(weights.network, ResNet)  # they name no others
    return weights.network


def _timm_config(weights: Weights, network: ResNet) -> dict[str, Json]:
    for name in models.list_models():
        if name.startswith("resnet") and _same_depth(models.create_model(name), network):
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


def _same_depth(one: Any, other: ResNet) -> bool:
    return all(getattr(one, field) == getattr(other, field) for field in _DEPTH)


_DEPTH = ("stage_sizes", "block", "width")


def _hugging_face_config(weights: Weights, network: ResNet) -> dict[str, Json]:
    bottleneck = network.block is BottleneckBlock
    expansion = 4 if bottleneck else 1
    return {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": weights.channels,
        "num_labels": network.num_classes,
        "embedding_size": network.width,
        "hidden_sizes": [
            network.width * 2**stage * expansion for stage in range(len(network.stage_sizes))
        ],
        "depths": list(network.stage_sizes),
        "layer_type": "bottleneck" if bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": network.stride_on == "1x1",
    }
