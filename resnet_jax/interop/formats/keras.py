"""Files of Keras: `.h5` and `.weights.h5`, and `.keras`, which is an archive with one of them.

Arrays get the names `LAYER/LEAF`, such as `conv1_conv/kernel`. Keras 2, and 3 in its older layout,
names them so; the newer one numbers the arrays of a layer, and stores the layer's name beside them.

Of HDF5 only arrays in groups are read. Links and arrays in other files are not followed, and the
arrays of a file have no more bytes than the file.
"""

import collections
import io
import zipfile
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.files import write_atomically
from resnet_jax.interop.formats import ENTRY, Contents, checked_members, read_json, refusing

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

_CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
_MOST_TEXT = 2**24
"""Bytes of a config; ResNet-152's has 300 kB."""

_NUMBERED = {
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
    2: ("kernel", "bias"),
    1: ("kernel",),
}
"""Names of the arrays of a layer by how many there are, in the order of their numbers."""

_Texts: TypeAlias = dict[tuple[str, str], str]
"""Attributes that are text, by the path of their group ("" is the file) and their name."""

_ORDER = [*_NUMBERED[2], *_NUMBERED[4]]


def read_keras(path: epath.Path) -> Contents:
    """Returns the contents of a file."""
    content, config = path.read_bytes(), None
    if content.startswith(b"PK"):
        config, content = _read_archive(content)
    arrays, texts = _read_hdf5(content)
    config = texts.get(("", "model_config")) if config is None else config
    metadata = {ENTRY: texts["", ENTRY]} if ("", ENTRY) in texts else {}
    model = None if config is None else read_json(config, "its config")
    return Contents(_by_layer(arrays, texts), metadata, model)


def write_keras(
    path: epath.Path,
    arrays: Mapping[str, np.ndarray],
    layers: Iterable[str],
    metadata: Mapping[str, str],
) -> None:
    """Writes arrays as Keras does in files `NAME.h5`, in the layout that all of its versions read.

    The layers are in the order of Keras' model.
    """
    library, layers = _h5py(), list(layers)
    buffer = io.BytesIO()
    with library.File(buffer, "w") as file:
        file.attrs.update({"keras_version": "3.0.0", **metadata})  # without, it would be Keras 1
        file.attrs["layer_names"] = np.array([layer.encode() for layer in layers])
        for layer in layers:
            names = [f"{layer}/{leaf}" for leaf in _ORDER if f"{layer}/{leaf}" in arrays]
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name in names])
            for name in names:
                group[name] = arrays[name]
    write_atomically(path, buffer.getvalue())


def _read_archive(content: bytes) -> tuple[bytes, bytes]:
    """Returns the config and the HDF5 of an archive."""
    with refusing("its archive is damaged"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = checked_members(archive, len(content), "Keras")
        for name in (_CONFIG, _WEIGHTS):
            if name not in members:
                raise InputError(f"its archive has no {name}")
        if members[_CONFIG].file_size > _MOST_TEXT:
            raise InputError(f"{_CONFIG} claims to have {members[_CONFIG].file_size} bytes")
        return archive.read(_CONFIG), archive.read(_WEIGHTS)


def _h5py() -> ModuleType:
    try:
        import h5py  # an extra: only files of Keras need it
    except ImportError as error:
        raise InputError(
            "for files of Keras h5py has to be installed: pip install 'resnet_jax[keras]'"
        ) from error
    return h5py


def _read_hdf5(content: bytes) -> tuple[dict[str, np.ndarray], _Texts]:
    """Returns the arrays of a file by their path, and its texts.

    HDF5's own library allocates up to 4 GiB for a text of variable length before it looks; no other
    number in a file makes it allocate more than the file has.
    """
    library, spare = _h5py(), len(content)
    arrays: dict[str, np.ndarray] = {}
    texts: _Texts = {}
    with refusing("its HDF5 is damaged"), library.File(io.BytesIO(content), "r") as file:
        items: list[tuple[str, Any]] = [("", file)]
        file.visititems(lambda path, item: items.append((path, item)))
        for path, item in items:
            if isinstance(item, library.Group):
                for name in ("name", "model_config", ENTRY):
                    text = item.attrs.get(name)
                    if isinstance(text, str | bytes):
                        texts[path, name] = text.decode() if isinstance(text, bytes) else text
                continue
            if not isinstance(item, library.Dataset):
                raise InputError(f"{path} is not an array")
            if item.is_virtual or item.external:
                raise InputError(f"{path} is in another file; nothing of it was read")
            if item.dtype.kind not in "fiub" or not item.size:
                raise InputError(f"{path} is of type {item.dtype}, not an array of numbers")
            spare -= item.nbytes  # compressed, or not written at all, it can claim more
            if spare < 0:
                raise InputError(f"its arrays up to {path} are larger than the file")
            array = np.asarray(item[()])
            arrays[path] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return arrays, texts


def _by_layer(arrays: Mapping[str, np.ndarray], texts: _Texts) -> dict[str, np.ndarray]:
    """Returns arrays by the names of their layers."""
    result: dict[str, np.ndarray] = {}
    counts = collections.Counter(path.rpartition("/")[0] for path in arrays)
    for path, array in arrays.items():
        group, _, leaf = path.rpartition("/")
        if path.startswith(("optimizer_weights/", "optimizer/")):
            continue
        if group.endswith("/vars"):
            layer, numbered = texts.get((group, "name")), _NUMBERED.get(counts[group], ())
            if layer is None or leaf not in map(str, range(len(numbered))):
                raise InputError(f"{path} is of a layer without a name; save the model as NAME.h5")
            leaf = numbered[int(leaf)]
        else:
            layer, leaf = group.rpartition("/")[2], leaf.removesuffix(":0")
        if f"{layer}/{leaf}" in result:
            raise InputError(f"the layer {layer[:60]!a} is there twice")
        result[f"{layer}/{leaf}"] = array
    if not result:
        raise InputError("it holds no arrays")
    return result
