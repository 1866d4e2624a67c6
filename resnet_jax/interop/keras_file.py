"""Files of Keras: `.h5` and `.weights.h5`, and `.keras`, which is an archive with one of them.

Arrays get the names `LAYER/LEAF`, such as `conv1_conv/kernel`. Keras 2, and 3 in its older layout,
names them so; the newer one numbers the arrays of a layer, and says the layer's name beside them.
"""

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.files import write_atomically
from resnet_jax.interop.archive import checked_members
from resnet_jax.interop.hdf5 import Contents, h5py, read_hdf5
from resnet_jax.interop.preprocessing import Json
from resnet_jax.interop.said import ENTRY

WEIGHTS = "model.weights.h5"
"""Member of a `.keras` archive with the arrays."""

_CONFIG = "config.json"
_TEXTS = ("name", "model_config", ENTRY)
_MOST_CONFIG = 2**24
_NUMBERED = {
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
    2: ("kernel", "bias"),
    1: ("kernel",),
}
"""Names of the arrays of a layer by how many there are, in the order of their numbers."""

_ORDER = [*_NUMBERED[2], *_NUMBERED[4]]


class KerasModel(NamedTuple):
    """What a file holds.

    Attributes:
      arrays: By name.
      config: What Keras says of the model, if the file has it.
      metadata: Strings that were written here.
    """

    arrays: dict[str, np.ndarray]
    config: dict[str, Json] | None
    metadata: dict[str, str]


def read_keras(path: epath.PathLike) -> KerasModel:
    """Returns the arrays of a model, and what Keras says of it.

    Args:
      path: The file.

    Raises:
      InputError: It is no such file, is damaged, or is more than arrays and their names; or the
        package `h5py` is not installed.
    """
    path = epath.Path(path)
    content = path.read_bytes()
    try:
        if content.startswith(b"PK"):
            return _of_archive(content)
        contents = read_hdf5(content, _TEXTS)
        config = contents.texts.get(("", "model_config"))
        entry = contents.texts.get(("", ENTRY))
        metadata = {} if entry is None else {ENTRY: entry}
        return KerasModel(_by_layer(contents), None if config is None else _json(config), metadata)
    except InputError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def is_keras_archive(path: epath.Path) -> bool:
    """Whether an archive is one of Keras, and not one of PyTorch."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return WEIGHTS in archive.namelist()
    except Exception:  # a damaged archive can raise anything in zipfile
        return path.suffix == ".keras"


def write_keras(
    path: epath.Path,
    arrays: Mapping[str, np.ndarray],
    layers: Iterable[str],
    metadata: Mapping[str, str],
) -> None:
    """Writes arrays as Keras does in files `NAME.h5`, in the layout that all of its versions read.

    Args:
      path: The file.
      arrays: By name.
      layers: Names of the layers, in the order of Keras' model.
      metadata: Strings beside them.

    Raises:
      InputError: The package `h5py` is not installed.
    """
    library, layers = h5py(), list(layers)
    buffer = io.BytesIO()
    with library.File(buffer, "w") as file:
        file.attrs.update({"keras_version": "3.0.0", **metadata})  # without, it would be Keras 1
        file.attrs["layer_names"] = np.array([layer.encode() for layer in layers])
        for layer in layers:
            leaves = [leaf for leaf in _ORDER if f"{layer}/{leaf}" in arrays]
            group = file.create_group(layer)
            names = [f"{layer}/{leaf}" for leaf in leaves]
            group.attrs["weight_names"] = np.array([name.encode() for name in names])
            for name in names:
                group[name] = arrays[name]
    write_atomically(path, buffer.getvalue())


def _of_archive(content: bytes) -> KerasModel:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = checked_members(archive, len(content), "Keras")
            for name in (_CONFIG, WEIGHTS):
                if name not in members:
                    raise InputError(f"its archive has no {name}")
            if members[_CONFIG].file_size > _MOST_CONFIG:
                raise InputError(f"{_CONFIG} claims to have {members[_CONFIG].file_size} bytes")
            config, weights = _json(archive.read(_CONFIG)), archive.read(WEIGHTS)
    except InputError:
        raise
    except Exception as error:  # a damaged archive can raise anything in zipfile
        raise InputError(f"its archive is damaged ({error})") from error
    return KerasModel(_by_layer(read_hdf5(weights, _TEXTS)), config, {})


def _json(text: str | bytes) -> dict[str, Json]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"its config is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError("its config is no JSON object")
    return value


def _by_layer(contents: Contents) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for path in contents.arrays:
        group = path.rpartition("/")[0]
        counts[group] = counts.get(group, 0) + 1
    for path, array in contents.arrays.items():
        group, _, leaf = path.rpartition("/")
        if path.startswith(("optimizer_weights/", "optimizer/")):
            continue
        if group.endswith("/vars"):
            layer, numbered = contents.texts.get((group, "name")), _NUMBERED.get(counts[group], ())
            if layer is None or leaf not in map(str, range(len(numbered))):
                raise InputError(f"{path} is of a layer without a name; save the model as NAME.h5")
            leaf = numbered[int(leaf)]
        else:
            layer, leaf = group.rpartition("/")[2], leaf.removesuffix(":0")
        if f"{layer}/{leaf}" in arrays:
            raise InputError(f"the layer {layer[:60]!a} is there twice")
        arrays[f"{layer}/{leaf}"] = array
    if not arrays:
        raise InputError("it holds no arrays")
    return arrays
