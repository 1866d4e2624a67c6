"""What a file that was written here says of its network, in its metadata."""

import json
from collections.abc import Mapping

from resnet_jax.errors import InputError
from resnet_jax.interop import preprocessing as preprocessings
from resnet_jax.interop.families import Family, family_of
from resnet_jax.interop.families.family import Fields
from resnet_jax.interop.preprocessing import Json
from resnet_jax.interop.weights import Weights

ENTRY = "resnet_jax"
"""Key of it among a file's metadata."""


def entry_of(weights: Weights) -> dict[str, str]:
    """Returns the metadata of a file with these weights."""
    network = weights.network
    fields = {field: getattr(network, field) for field in family_of(network).said}
    entry = {
        "network": {"module": type(network).__name__, **fields},
        "preprocessing": preprocessings.to_json(weights.preprocessing),
    }
    return {ENTRY: json.dumps(entry)}


def read_entry(metadata: Mapping[str, str]) -> dict[str, Json]:
    """Returns what a file says of itself; nothing if it was not written here.

    Raises:
      InputError: It is no JSON object.
    """
    if ENTRY not in metadata:
        return {}
    try:
        entry = json.loads(metadata[ENTRY])
    except (ValueError, RecursionError) as error:
        raise InputError(f"its metadata {ENTRY} is no JSON: {error}") from error
    if not isinstance(entry, dict):
        raise InputError(f"its metadata {ENTRY} is no JSON object")
    return entry


def said_module(entry: Mapping[str, Json]) -> str | None:
    """Returns the class of its network that a file says, or None if it does not say one.

    Raises:
      InputError: It says something else.
    """
    match entry.get("network"):
        case None:
            return None
        case {"module": str(module)}:
            return module
        case network:
            raise InputError(f"its metadata {ENTRY} says of its network {network}")


def said_fields(entry: Mapping[str, Json], family: Family) -> Fields:
    """Returns the fields of its network that a file says.

    Raises:
      InputError: It says others, or what they cannot be.
    """
    match entry.get("network"):
        case None:
            return {}
        case {"module": str(), **fields} if fields.keys() == family.said.keys():
            if all(family.said[field](value) for field, value in fields.items()):
                return fields
    raise InputError(f"its metadata {ENTRY} says of its network {entry['network']}")
