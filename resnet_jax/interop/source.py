"""Where weights lie: a file, a folder as the hub has them, or the hub itself."""

import json
from typing import NamedTuple

import numpy as np
from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.files import resolve_path
from resnet_jax.interop.caffe_file import read_caffe, read_mean_image
from resnet_jax.interop.hdf5 import MAGIC as HDF5_MAGIC
from resnet_jax.interop.hub import WEIGHTS, download, is_hub_id
from resnet_jax.interop.keras_file import is_keras_archive, read_keras
from resnet_jax.interop.preprocessing import Json
from resnet_jax.interop.safetensors_file import read_safetensors
from resnet_jax.interop.said import ENTRY
from resnet_jax.interop.torch_file import ZIP_MAGIC, read_torch

_CAFFE = ".caffemodel"
_MEAN = "*mean.binaryproto"
_LEGACY_MAGICS = (b"\x80\x02", b"./Pa", b"sys_")
_LOOKED_AT = 9
_LONGEST_NAME = 200


class Found(NamedTuple):
    """What a source holds, as it stands there.

    Attributes:
      arrays: Arrays by name.
      metadata: Strings beside them, in the same file.
      config: The folder's `config.json`, or what a file of Keras says of its model.
      preprocessor: The folder's `preprocessor_config.json`.
      path: The file of the arrays.
      mean_image: That of a folder of Caffe's.
    """

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]
    config: dict[str, Json] | None
    preprocessor: dict[str, Json] | None
    path: epath.Path
    mean_image: np.ndarray | None = None


def find(source: epath.PathLike) -> Found:
    """Reads what is at a source.

    Args:
      source: A file; a folder with `model.safetensors` or `pytorch_model.bin`, and perhaps
        `config.json` and `preprocessor_config.json`, or with one `.caffemodel` and perhaps a
        `mean.binaryproto`; or an id of the hub.

    Raises:
      InputError: There is nothing, or it cannot be read.
    """
    path = resolve_path(source)
    if not path.exists():
        if not is_hub_id(str(source)):
            raise InputError(f"there is no file or folder {source}")
        path = download(str(source))
    config = preprocessor = mean_image = None
    if path.is_dir():
        folder, path = path, _weights_of(path)
        if path.suffix == _CAFFE:
            mean_image = _mean_image_of(folder)
        else:
            config = _read_json(folder / "config.json")
            preprocessor = _read_json(folder / "preprocessor_config.json")
    found = _read(path)
    for name in found.arrays:
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            raise InputError(f"{path} has the name {name[:_LONGEST_NAME]!a}, which is no name")
    return found._replace(
        arrays=_without_wrappers(found.arrays),
        config=config or found.config,
        preprocessor=preprocessor,
        mean_image=mean_image,
    )


def _weights_of(folder: epath.Path) -> epath.Path:
    for name in WEIGHTS:
        if (folder / name).exists():
            return folder / name
    models = sorted(folder.glob(f"*{_CAFFE}"))
    if len(models) == 1:
        return models[0]
    raise InputError(f"{folder} has no {' or '.join(WEIGHTS)}, nor one {_CAFFE}")


def _mean_image_of(folder: epath.Path) -> np.ndarray | None:
    images = sorted(folder.glob(_MEAN))
    if len(images) > 1:
        raise InputError(f"{folder} has {len(images)} mean images")
    return read_mean_image(images[0]) if images else None


def _read(path: epath.Path) -> Found:
    try:
        with path.open("rb") as file:
            magic = file.read(_LOOKED_AT)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if magic.startswith(HDF5_MAGIC) or (magic.startswith(ZIP_MAGIC) and is_keras_archive(path)):
        model = read_keras(path)
        return Found(model.arrays, model.metadata, model.config, None, path)
    if magic.startswith(ZIP_MAGIC):
        return Found(read_torch(path), {}, None, None, path)
    if magic.startswith(_LEGACY_MAGICS):
        raise InputError(
            f"{path} is in PyTorch's format from before version 1.6, which is not read; convert "
            "it where PyTorch is: torch.save(torch.load(path, weights_only=True), path)"
        )
    if path.suffix == _CAFFE:
        blobs, name = read_caffe(path)
        return Found(blobs, {ENTRY: name} if name.startswith("{") else {}, None, None, path)
    if path.suffix != ".safetensors" and magic[8:] != b"{":  # the header, behind its length
        raise InputError(
            f"{path} is no file of weights: neither of safetensors, nor of PyTorch, Keras or Caffe"
        )
    arrays, metadata = read_safetensors(path)
    return Found(arrays, metadata, None, None, path)


def _read_json(path: epath.Path) -> dict[str, Json] | None:
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object")
    return value


def _without_wrappers(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays without what DataParallel or torch.compile put before every name."""
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays
