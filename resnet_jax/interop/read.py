"""From a file of any dialect to a network of ours and its arrays."""

import json
import re
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from etils import epath

from resnet_jax.errors import InputError, unknown
from resnet_jax.interop import preprocessing as preprocessings
from resnet_jax.interop.form import (
    FOREIGN_FORM,
    check_fit,
    check_types,
    expected_shapes,
    input_channels,
    recognise_dialect,
    recognise_form,
)
from resnet_jax.interop.naming import DialectName, foreign_name, to_ours
from resnet_jax.interop.preprocessing import Json, Preprocessing
from resnet_jax.interop.source import Found, find
from resnet_jax.interop.weights import Weights
from resnet_jax.models import ResNet

ENTRY = "resnet_jax"
"""Key of what a file that was written here says of itself, in the metadata of safetensors."""

MEAN_IMAGE = "preprocessing/mean_image"

_TORCHVISION_V2 = ("-11ad3fa6", "-cd907fc2", "-f82ba261")
"""Ends of the names of torchvision's second weights (of 50, 101 and 152 layers)."""

_TIMM_PLAIN = re.compile(r"(tv_)?resnet\d+")
_TIMM_VISIBLE = {"num_classes", "in_chans"}
_HUGGING_FACE_FORM = {"hidden_act": "relu", "downsample_in_first_stage": False}


def read_weights(
    source: epath.PathLike,
    *,
    dialect: DialectName | None = None,
    preprocessing: Preprocessing | None = None,
    **options: Any,
) -> Weights:
    """Returns the network that a file's arrays belong to, and the arrays.

    Depth, block, width, number of classes and stem are recognised by the arrays. Where the
    stride and the padding of the max-pool are is not in them: a file that was written here says
    it, as does the config of Hugging Face; for the others it is v1.5.

    Args:
      source: A file of safetensors, a file of PyTorch (`.pth`), a folder of them with their
        configs, or an id of the Hugging Face hub.
      dialect: Whose names they are; by default it is recognised.
      preprocessing: What images have to go through; by default what the source says, or what is
        usual with this dialect.
      **options: Fields of `ResNet`, before what was recognised.

    Raises:
      InputError: There is no such source, it cannot be read, or the arrays are those of no
        network; the message has the first names and shapes that differ.
    """
    found = find(source)
    try:
        return _weights(found, str(source), dialect, preprocessing, options)
    except InputError as error:
        raise InputError(f"{source} cannot be taken: {error}") from error


def _weights(
    found: Found,
    source: str,
    dialect: DialectName | None,
    preprocessing: Preprocessing | None,
    options: Mapping[str, Any],
) -> Weights:
    arrays = dict(found.arrays)
    mean_image = arrays.pop(MEAN_IMAGE, None)
    shapes = {name: array.shape for name, array in arrays.items()}
    dialect = dialect or _dialect(found, recognise_dialect(shapes))
    if dialect not in get_args(DialectName):
        raise unknown("dialect", dialect, get_args(DialectName))
    entry = _entry(found)
    fields = FOREIGN_FORM | recognise_form(dialect, shapes)
    fields |= {**_said_by(entry), **_said_by_config(found.config, dialect), **options}
    try:
        network = ResNet(**fields)
    except TypeError as error:
        raise InputError(f"its network cannot be made: {error}") from error
    expected = expected_shapes(network, input_channels(dialect, shapes))
    check_fit(dialect, shapes, expected)
    ours = {
        name: to_ours(dialect, arrays[theirs])
        for name in expected
        if (theirs := foreign_name(dialect, name)) in arrays
    }
    check_types(ours)
    if preprocessing is None:
        preprocessing = _preprocessing(found, dialect, entry)
        if mean_image is not None:
            size = preprocessing.image_size
            shape = (size, size, input_channels(dialect, shapes))
            if mean_image.shape != shape or mean_image.dtype != np.float32:
                raise InputError(f"its mean image is not float32 of shape {shape}")
            preprocessing = preprocessing._replace(mean_image=mean_image)
    return Weights(network, ours, preprocessing, source)


def _dialect(found: Found, by_names: DialectName) -> DialectName:
    timm = by_names == "torchvision" and found.config is not None
    return "timm" if timm and "architecture" in (found.config or {}) else by_names


def _entry(found: Found) -> dict[str, Json]:
    if ENTRY not in found.metadata:
        return {}
    try:
        entry = json.loads(found.metadata[ENTRY])
    except (ValueError, RecursionError) as error:
        raise InputError(f"its metadata {ENTRY} is no JSON: {error}") from error
    if not isinstance(entry, dict):
        raise InputError(f"its metadata {ENTRY} is no JSON object")
    return entry


def _said_by(entry: Mapping[str, Json]) -> dict[str, Any]:
    match entry.get("network"):
        case None:
            return {}
        case {
            "pool_padding": [0 | 1 | 2, 0 | 1 | 2],
            "bn_momentum": int() | float(),
            "bn_epsilon": int() | float(),
            **others,
        } as network if others.keys() == {"shortcut", "stride_on", "output_stride"}:
            return dict(network)
        case network:
            raise InputError(f"its metadata {ENTRY} says of its network {network}")


def _said_by_config(config: Mapping[str, Json] | None, dialect: DialectName) -> dict[str, Any]:
    """Returns the fields of a network that a `config.json` decides; other networks are refused."""
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
    return {}


def _preprocessing(found: Found, dialect: DialectName, entry: Mapping[str, Json]) -> Preprocessing:
    config = (found.config or {}).get("pretrained_cfg")
    match entry.get("preprocessing"):
        case dict() as said:
            return preprocessings.of_json(said)
        case _ if dialect == "timm" and isinstance(config, dict):
            return preprocessings.of_timm(config)
        case _ if dialect == "huggingface" and found.preprocessor is not None:
            return preprocessings.of_hugging_face(found.preprocessor)
        case _ if dialect == "torchvision" and found.path.stem.endswith(_TORCHVISION_V2):
            return Preprocessing(resize=232)
        case _:
            return Preprocessing()
