"""File formats of weights, one module each: a reader, and a writer if the format is written.

A reader refuses a file with a sentence about "it"; `source` puts the path before it.
"""

import contextlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

from resnet_jax.errors import InputError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

ENTRY = "resnet_jax"
"""Name of our metadata in a file of any format, see `configs`."""


class Contents(NamedTuple):
    """Contents of a file or folder, in the names and layout of its library.

    Attributes:
      arrays: Arrays by name.
      metadata: Strings beside them, in the same file.
      config: The folder's `config.json`, or Keras' config of a model.
      preprocessor: The folder's `preprocessor_config.json`.
      mean_image: The mean image in a folder of Caffe.
    """

    arrays: dict[str, np.ndarray]
    metadata: Mapping[str, str] = {}
    config: dict[str, Json] | None = None
    preprocessor: dict[str, Json] | None = None
    mean_image: np.ndarray | None = None


def read_json(text: str | bytes, name: str) -> dict[str, Json]:
    """Returns a JSON object; refuses another text under its name."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{name} is not a JSON object")
    return value


@contextlib.contextmanager
def refusing(sentence: str) -> Iterator[None]:
    """Refuses with a sentence whatever a library raises, where it can raise anything."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        lacks = "it lacks " if isinstance(error, KeyError) else ""
        raise InputError(f"{sentence} ({lacks}{reason})") from error


def checked_members(
    archive: zipfile.ZipFile, file_size: int, library: str
) -> Mapping[str, zipfile.ZipInfo]:
    """Returns the members of an archive without compression, as PyTorch and Keras write them.

    Refuses members that are compressed, encrypted, there twice or larger than the file.
    """
    members = {}
    spare = file_size
    for member in archive.infolist():
        name = member.filename
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise InputError(f"{name} is compressed or encrypted, as {library} writes none")
        spare -= member.file_size  # members that share bytes would have more than there are
        if member.compress_size != member.file_size or spare < 0:
            raise InputError(f"{name} claims to be larger than the file")
        if name in members:
            raise InputError(f"{name} is there twice")
        members[name] = member
    return members
