"""What Keras says of a model, as data: nothing of it is made or run."""

from collections.abc import Iterable, Mapping
from typing import Any

from resnet_jax.errors import InputError
from resnet_jax.interop.preprocessing import Json

_LAYERS = {
    *("InputLayer", "ZeroPadding2D", "Conv2D", "BatchNormalization", "Activation", "MaxPooling2D"),
    *("Add", "GlobalAveragePooling2D", "Dense"),
}
_SHOWN = 60


def fields_of_keras(config: Mapping[str, Json]) -> dict[str, Any]:
    """Returns the fields of a residual network that Keras' config of it decides.

    Raises:
      InputError: It has layers that a residual network does not have, such as a Lambda, which would
        run what its author wanted, or lacks some, or they are not as in one.
    """
    layers: dict[str, Mapping[str, Json]] = {}
    model = config.get("config")
    described = model.get("layers") if isinstance(model, dict) else None
    if not isinstance(described, list):
        raise InputError("its config describes no model of layers")
    for layer in described:
        kind, fields = (
            (layer.get("class_name"), layer.get("config")) if isinstance(layer, dict) else (0, 0)
        )
        if not isinstance(kind, str) or not isinstance(fields, dict):
            raise InputError("its config describes a layer that is none")
        if kind not in _LAYERS:
            raise InputError(
                f"it has a layer of the class {kind[:_SHOWN]!a}, which no residual network of "
                "Keras has; nothing was run"
            )
        layers[str(fields.get("name"))] = {**fields, "class": kind}
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


def _stride_on(layers: Mapping[str, Mapping[str, Json]]) -> str:
    if "conv3_block1_1_conv" not in layers:
        return "1x1"  # a single stage has no stride
    match [_of(layers, f"conv3_block1_{i}_conv", "strides") for i in (1, 2)]:
        case [[2, 2], [1, 1]]:
            return "1x1"
        case [[1, 1], [2, 2]]:
            return "3x3"
        case strides:
            raise InputError(f"a block of it has the strides {str(strides)[:_SHOWN]!a}")


def _of(layers: Mapping[str, Mapping[str, Json]], name: str, field: str) -> Any:
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
