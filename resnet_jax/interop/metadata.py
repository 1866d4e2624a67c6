"""Metadata of the files that are written here: the network's form and the preprocessing, as JSON.

They have the fields of the network that its arrays do not show. Which those are follows from the
network's dataclass: a field that an older file lacks has its default.
"""

import collections.abc
import dataclasses
import json
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from flax import linen as nn

from resnet_jax.errors import InputError
from resnet_jax.interop import preprocessing as preprocessings
from resnet_jax.interop.families import key_map
from resnet_jax.interop.families.key_map import Fields
from resnet_jax.interop.formats import ENTRY, Json
from resnet_jax.interop.weights import Weights, shapes_of

_NOT_SAVED = ("parent", "name", "dtype", "remat", "zero_init_residual", "bn_group_size")
_NOT_SAVED += ("bn_axis_name",)
"""Fields that decide how a network is run or trained, and not what its arrays mean."""

_LARGEST_COUNT = 2**20
_PADDINGS = (0, 1, 2)
_LARGEST_NUMBER = 1e6
_LONGEST = 16


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
        "preprocessing": preprocessings.to_json(weights.preprocessing),
    }
    return {ENTRY: json.dumps(entry)}


def read_entry(metadata: Mapping[str, str]) -> dict[str, Json]:
    """Returns the entry of a file; an empty one if it was not written here."""
    if ENTRY not in metadata:
        return {}
    try:
        entry = json.loads(metadata[ENTRY])
    except (ValueError, RecursionError) as error:
        raise InputError(f"its metadata {ENTRY} is no JSON: {error}") from error
    if not isinstance(entry, dict):
        raise InputError(f"its metadata {ENTRY} is no JSON object")
    return entry


def class_name_of(entry: Mapping[str, Json]) -> str | None:
    """Returns the name of the network's class in an entry, or None if it has none."""
    match entry.get("network"):
        case None:
            return None
        case {"module": str(name)}:
            return name
        case network:
            raise InputError(f"its metadata {ENTRY} says of its network {network}")


def fields_of(entry: Mapping[str, Json], network_class: type[nn.Module]) -> Fields:
    """Returns the fields of the network in an entry.

    Raises:
      InputError: There are others than the class has, or a value that a field cannot have.
    """
    types_ = _field_types(network_class)
    match entry.get("network"):
        case None:
            return {}
        case {"module": str(), **fields} if fields.keys() <= types_.keys():
            if all(_is_value(value, types_[field]) for field, value in fields.items()):
                return {f: tuple(v) if isinstance(v, list) else v for f, v in fields.items()}
    raise InputError(f"its metadata {ENTRY} says of its network {entry['network']}")


def _field_types(network_class: type[nn.Module]) -> dict[str, Any]:
    """Returns the types of the fields that a file can have: all but those of code and training."""
    return {
        field.name: field.type
        for field in dataclasses.fields(network_class)  # pyrefly: ignore
        if field.name not in _NOT_SAVED and get_origin(field.type) is not collections.abc.Callable
    }


def _is_value(value: Json, kind: Any) -> bool:
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
        case [_, *_] if arguments and len(value) <= _LONGEST:
            return all(_is_value(each, arguments[0]) for each in value)
    return False
