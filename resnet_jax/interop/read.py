"""From a file of any dialect to a network of ours and its arrays."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.interop import preprocessing as preprocessings
from resnet_jax.interop.beside import beside_shapes, filled, is_beside
from resnet_jax.interop.configs import said_by_config
from resnet_jax.interop.families import recognise, vocabulary
from resnet_jax.interop.families.family import Look
from resnet_jax.interop.form import check_fit, check_types, network_shapes
from resnet_jax.interop.naming import DialectName
from resnet_jax.interop.preprocessing import Json, Preprocessing
from resnet_jax.interop.said import read_entry, said_fields, said_module
from resnet_jax.interop.source import Found, find
from resnet_jax.interop.weights import MEAN_IMAGE, Weights

_TORCHVISION_V2 = ("-11ad3fa6", "-cd907fc2", "-f82ba261")
"""Ends of the names of torchvision's second weights (of 50, 101 and 152 layers)."""

_TORCHVISION_GOOGLENET = "-1378be20"
"""End of the name of torchvision's weights of GoogLeNet, which want other images than the rest."""

_LONGEST_MESSAGE = 1000
_HALF = (0.5, 0.5, 0.5)
_CAFFE_MEANS = {
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
    """Returns the network that a file's arrays belong to, and the arrays.

    What the arrays show of the network is recognised by them, as is whose names they have. Where
    the stride and the padding of the max-pool are is not in them: a file that was written here says
    it, as do the configs of Hugging Face and Keras; else it is as is usual with the library.

    Args:
      source: What `load_pretrained` takes.
      dialect: Whose names they are; by default it is recognised.
      preprocessing: What images have to go through; by default what the source says, or what is
        usual with this dialect.
      **options: Fields of the network, before what was recognised.

    Raises:
      InputError: There is no such source, it cannot be read, or the arrays are those of no
        network; the message has the first names and shapes that differ.
    """
    try:
        found = find(source)
    except InputError as error:
        raise InputError(_printable(str(error))) from error
    try:
        return _weights(found, str(source), dialect, preprocessing, options)
    except InputError as error:
        raise InputError(_printable(f"{source} cannot be taken: {error}")) from error


def _printable(message: str) -> str:
    """Returns a message, in which a stranger's words may stand, fit for a terminal."""
    shown = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}..."
    return "".join(c if c.isprintable() else "?" for c in shown)


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
    entry = read_entry(found.metadata)
    family, dialect = recognise(shapes, dialect or _timm(found), said_module(entry))
    speech = vocabulary(family, dialect)
    said = said_fields(entry, family)
    if sum(said.get("stage_sizes", ())) > len(arrays):
        raise InputError(f"it says of its network {said['stage_sizes']}, and has fewer arrays")
    fields = {**speech.form, **speech.fields(shapes), **said}
    fields |= {**said_by_config(found.config, dialect), **options}
    try:
        network = family.module(**fields)
    except TypeError as error:
        raise InputError(f"its network cannot be made: {error}") from error
    place = functools.partial(speech.place, network)
    channels = family.channels(Look(shapes, place))
    expected = network_shapes(network, channels)
    expected |= beside_shapes(expected)
    check_fit(place, shapes, expected)
    ours = {
        name: there.here(arrays[there.name])
        for name in expected
        if (there := place(name)) is not None and there.name in arrays
    }
    check_types(ours)
    for name in filter(is_beside, list(ours)):
        fill = speech.fill(network, name)
        if fill is not None and ours[name].tobytes() == filled(ours, name, fill).tobytes():
            del ours[name]  # as it is where nothing else is known
    if preprocessing is None:
        usual = preprocessings.usual(channels, family.side)
        preprocessing = _preprocessing(found, dialect, entry, usual)
        mean_image = found.mean_image if mean_image is None else mean_image
        if mean_image is not None:
            size = preprocessing.image_size
            shape = (size, size, channels)
            if mean_image.shape != shape or mean_image.dtype != np.float32:
                raise InputError(f"its mean image is not float32 of shape {shape}")
            preprocessing = preprocessing._replace(mean_image=mean_image)
    return Weights(network, ours, preprocessing, source)


def _timm(found: Found) -> DialectName | None:
    return "timm" if "architecture" in (found.config or {}) else None


def _preprocessing(
    found: Found, dialect: DialectName, entry: Mapping[str, Json], usual: Preprocessing
) -> Preprocessing:
    config = (found.config or {}).get("pretrained_cfg")
    match entry.get("preprocessing"):
        case dict() as said:
            return preprocessings.of_json(said)
        case _ if dialect in _CAFFE_MEANS:
            mean = tuple(value / 255 for value in _CAFFE_MEANS[dialect])
            return Preprocessing(mean=mean, std=(1 / 255,) * 3)
        case _ if dialect == "timm" and isinstance(config, dict):
            return preprocessings.of_timm(config)
        case _ if dialect == "huggingface" and found.preprocessor is not None:
            return preprocessings.of_hugging_face(found.preprocessor)
        case _ if dialect == "torchvision" and found.path.stem.endswith(_TORCHVISION_V2):
            return Preprocessing(resize=232)
        case _ if dialect == "torchvision" and found.path.stem.endswith(_TORCHVISION_GOOGLENET):
            return Preprocessing(mean=_HALF, std=_HALF)
        case _:
            return usual
