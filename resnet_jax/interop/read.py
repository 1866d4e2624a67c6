"""From a file of any dialect to a network of ours and its arrays."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.interop import preprocessing as preprocessings
from resnet_jax.interop.configs import fields_of_config
from resnet_jax.interop.extra_arrays import extra_shapes, filled, is_extra
from resnet_jax.interop.families import key_map, recognise, usual_side
from resnet_jax.interop.families.key_map import DialectName
from resnet_jax.interop.metadata import class_name_of, fields_of, read_entry
from resnet_jax.interop.preprocessing import Json, Preprocessing
from resnet_jax.interop.source import Contents, read_source
from resnet_jax.interop.weights import (
    MEAN_IMAGE,
    Weights,
    check_fit,
    check_types,
    image_channels,
    network_shapes,
    shapes_of,
)

_TORCHVISION_V2 = ("-11ad3fa6", "-cd907fc2", "-f82ba261")
"""Ends of the names of torchvision's second weights (of 50, 101 and 152 layers)."""

_TORCHVISION_GOOGLENET = "-1378be20"
"""End of the name of torchvision's weights of GoogLeNet, which need other images than the rest."""

_LONGEST_MESSAGE = 1000
_HALF = (0.5, 0.5, 0.5)
_MEAN_COLOURS = {
    "keras": (123.68, 116.779, 103.939),
    "caffe": (123.151630838, 115.902882574, 103.062623801),
}
"""Mean colours of ImageNet, of 255: those that Keras subtracts, and those of He's mean image."""


def read_weights(
    source: epath.PathLike,
    *,
    dialect: DialectName | None = None,
    preprocessing: Preprocessing | None = None,
    **options: Any,
) -> Weights:
    """Returns the network that a file's arrays belong to, and all arrays in the types of the file.

    Arguments and errors are those of `load_pretrained`.
    """
    try:
        contents = read_source(source)
    except InputError as error:
        raise InputError(_printable(str(error))) from error
    try:
        return _weights(contents, str(source), dialect, preprocessing, options)
    except InputError as error:
        raise InputError(_printable(f"{source} cannot be taken: {error}")) from error


def _printable(message: str) -> str:
    """Returns a message, which can quote a stranger's file, fit for a terminal."""
    shown = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}..."
    return "".join(c if c.isprintable() else "?" for c in shown)


def _weights(
    contents: Contents,
    source: str,
    dialect: DialectName | None,
    preprocessing: Preprocessing | None,
    options: Mapping[str, Any],
) -> Weights:
    arrays = dict(contents.arrays)
    mean_image = arrays.pop(MEAN_IMAGE, contents.mean_image)
    shapes = shapes_of(arrays)
    entry = read_entry(contents.metadata)
    if dialect is None and "architecture" in (contents.config or {}):
        dialect = "timm"
    network_class, dialect = recognise(shapes, dialect, class_name_of(entry))
    keys = key_map(network_class, dialect)
    saved = fields_of(entry, network_class)
    if sum(saved.get("stage_sizes", ())) > len(arrays):
        raise InputError(
            f"it says of its network {list(saved['stage_sizes'])}, and has fewer arrays"
        )
    fields = {**keys.form, **keys.infer(shapes), **saved}
    fields |= {**fields_of_config(contents.config, dialect), **options}
    try:
        network = network_class(**fields)
    except TypeError as error:
        raise InputError(f"its network cannot be made: {error}") from error
    key = functools.partial(keys.key, network)
    expected = network_shapes(network, 3)
    our_shapes = {
        name: theirs.our_shape(shapes[theirs.name])
        for name in expected
        if (theirs := key(name)) is not None and theirs.name in shapes
    }
    channels = image_channels(network, our_shapes)
    expected = network_shapes(network, channels)
    expected = {**expected, **extra_shapes(expected)}
    check_fit(key, shapes, expected)
    ours = {
        name: theirs.to_ours(arrays[theirs.name])
        for name in expected
        if (theirs := key(name)) is not None and theirs.name in arrays
    }
    check_types(ours)
    for name in filter(is_extra, list(ours)):
        fill = keys.fill(network, name)
        if fill is not None and ours[name].tobytes() == filled(ours, name, fill).tobytes():
            del ours[name]  # as where nothing else is known
    if preprocessing is None:
        usual = preprocessings.usual(channels, usual_side(network_class))
        preprocessing = _preprocessing(contents, dialect, entry, usual)
        if mean_image is not None:
            size = preprocessing.image_size
            shape = (size, size, channels)
            if mean_image.shape != shape or mean_image.dtype != np.float32:
                raise InputError(f"its mean image is not float32 of shape {shape}")
            preprocessing = preprocessing._replace(mean_image=mean_image)
    return Weights(network, ours, preprocessing, source)


def _preprocessing(
    contents: Contents, dialect: DialectName, entry: Mapping[str, Json], usual: Preprocessing
) -> Preprocessing:
    config = (contents.config or {}).get("pretrained_cfg")
    match entry.get("preprocessing"):
        case dict() as saved:
            return preprocessings.of_json(saved)
        case _ if dialect in _MEAN_COLOURS:
            mean = tuple(value / 255 for value in _MEAN_COLOURS[dialect])
            return Preprocessing(mean=mean, std=(1 / 255,) * 3)
        case _ if dialect == "timm" and isinstance(config, dict):
            return preprocessings.of_timm(config)
        case _ if dialect == "huggingface" and contents.preprocessor is not None:
            return preprocessings.of_hugging_face(contents.preprocessor)
        case _ if dialect == "torchvision" and contents.path.stem.endswith(_TORCHVISION_V2):
            return Preprocessing(resize=232)
        case _ if dialect == "torchvision" and contents.path.stem.endswith(_TORCHVISION_GOOGLENET):
            return Preprocessing(mean=_HALF, std=_HALF)
        case _:
            return usual
