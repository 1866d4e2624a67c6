"""Where weights lie: a file, a folder as the hub has them, or the hub itself."""

import json
from typing import NamedTuple

import numpy as np
from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.interop.hub import download, is_hub_id
from resnet_jax.interop.preprocessing import Json
from resnet_jax.interop.safetensors_file import read_safetensors
from resnet_jax.interop.torch_file import ZIP_MAGIC, read_torch

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_LEGACY_MAGICS = (b"\x80\x02", b"./Pa", b"sys_")
_LONGEST_NAME = 200


class Found(NamedTuple):
    """What a source holds, as it stands there.

    Attributes:
      arrays: Arrays by name.
      metadata: Strings beside them, in the same file.
      config: The folder's `config.json`.
      preprocessor: The folder's `preprocessor_config.json`.
      path: The file of the arrays.
    """

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]
    config: dict[str, Json] | None
    preprocessor: dict[str, Json] | None
    path: epath.Path


def find(source: epath.PathLike) -> Found:
    """Reads what is at a source.

    Args:
      source: A file; a folder with `model.safetensors` or `pytorch_model.bin`, and perhaps
        `config.json` and `preprocessor_config.json`; or an id of the hub.

    Raises:
      InputError: There is nothing, or it cannot be read.
    """
    path = epath.Path(source).expanduser()
    if not path.exists():
        if not is_hub_id(str(source)):
            raise InputError(f"there is no file or folder {source}")
        path = download(str(source))
    config = preprocessor = None
    if path.is_dir():
        folder, path = path, _weights_of(path)
        config = _read_json(folder / "config.json")
        preprocessor = _read_json(folder / "preprocessor_config.json")
    arrays, metadata = _read_arrays(path)
    for name in arrays:
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            raise InputError(f"{path} has the name {name[:_LONGEST_NAME]!a}, which is no name")
    return Found(_without_wrappers(arrays), metadata, config, preprocessor, path)


def _weights_of(folder: epath.Path) -> epath.Path:
    for name in _WEIGHTS:
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{folder} has no {' or '.join(_WEIGHTS)}")


def _read_arrays(path: epath.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == ZIP_MAGIC:
        return read_torch(path), {}
    if magic.startswith(_LEGACY_MAGICS):
        raise InputError(
            f"{path} is in PyTorch's format from before version 1.6, which is not read; convert "
            "it where PyTorch is: torch.save(torch.load(path, weights_only=True), path)"
        )
    return read_safetensors(path)


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
