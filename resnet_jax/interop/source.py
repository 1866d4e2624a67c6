"""Sources of weights: a file, a folder as on the Hugging Face hub, or the hub itself."""

import contextlib
import re
from collections.abc import Iterator

import numpy as np
from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.files import resolve_path
from resnet_jax.interop.formats import ENTRY, Contents, read_json
from resnet_jax.interop.formats.caffe import read_caffe, read_mean_image
from resnet_jax.interop.formats.keras import HDF5_MAGIC, read_keras
from resnet_jax.interop.formats.pytorch import ZIP_MAGIC, read_torch
from resnet_jax.interop.formats.safetensors import read_safetensors

_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the one that is preferred first
_CONFIGS = ["config.json", "preprocessor_config.json"]
_CAFFE = ".caffemodel"
_MEAN = "*mean.binaryproto"
_LEGACY_MAGICS = (b"\x80\x02", b"./Pa", b"sys_")
_MAGIC_BYTES = 9
_LONGEST_NAME = 200


def read_source(source: epath.PathLike) -> tuple[epath.Path, Contents]:
    """Returns the file of a source's arrays, and all contents; see `load_pretrained`."""
    path = resolve_path(source)
    if not path.exists():
        path = _download(str(source))
    config = preprocessor = mean_image = None
    if path.is_dir():
        folder, path = path, _weights_of(path)
        if path.suffix == _CAFFE:
            images = sorted(folder.glob(_MEAN))
            if len(images) > 1:
                raise InputError(f"{folder} has {len(images)} mean images")
            for image in images:
                with _naming(image):
                    mean_image = read_mean_image(image)
        else:
            config, preprocessor = (
                read_json(file.read_bytes(), str(file)) if file.exists() else None
                for file in (folder / name for name in _CONFIGS)
            )
    with _naming(path):
        contents = _read_file(path)
        arrays = _checked_names(contents.arrays)
    return path, contents._replace(
        arrays=arrays,
        config=config or contents.config,
        preprocessor=preprocessor,
        mean_image=mean_image,
    )


def _download(source: str) -> epath.Path:
    """Returns a folder with the weights and the configs of a repository of the hub."""
    match = _HUB_ID.fullmatch(source)
    if match is None:
        raise InputError(f"there is no file or folder {source}")
    try:
        import huggingface_hub  # an extra: most use files of their own
    except ImportError as error:
        raise InputError(
            f"{source} is not a file or folder here, and to have it from the hub "
            "huggingface_hub has to be installed: pip install 'resnet_jax[hub]'"
        ) from error
    for weights in _WEIGHTS:
        try:
            folder = epath.Path(
                huggingface_hub.snapshot_download(
                    match["repository"],
                    revision=match["revision"],
                    allow_patterns=[*_CONFIGS, weights],
                )
            )
        except (OSError, ValueError) as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise InputError(
                f"{source} is not a file or folder here, and the hub does not give it: {line}"
            ) from error
        if (folder / weights).exists():
            break
    return folder


def _weights_of(folder: epath.Path) -> epath.Path:
    for name in _WEIGHTS:
        if (folder / name).exists():
            return folder / name
    models = sorted(folder.glob(f"*{_CAFFE}"))
    if len(models) == 1:
        return models[0]
    raise InputError(f"{folder} has no {' or '.join(_WEIGHTS)}, nor one {_CAFFE}")


@contextlib.contextmanager
def _naming(path: epath.Path) -> Iterator[None]:
    """Puts the path of a file before what is wrong with it."""
    try:
        yield
    except (InputError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _read_file(path: epath.Path) -> Contents:
    """Reads a file in the format that its first bytes show."""
    with path.open("rb") as file:
        magic = file.read(_MAGIC_BYTES)
    is_archive = magic.startswith(ZIP_MAGIC)
    if magic.startswith(HDF5_MAGIC) or (is_archive and path.suffix == ".keras"):
        return read_keras(path)
    if is_archive:
        return Contents(read_torch(path))
    if magic.startswith(_LEGACY_MAGICS):
        raise InputError(
            "it is in PyTorch's format from before version 1.6; convert it where PyTorch is: "
            "torch.save(torch.load(path, weights_only=True), path)"
        )
    if path.suffix == _CAFFE:
        blobs, name = read_caffe(path)
        return Contents(blobs, {ENTRY: name} if name.startswith("{") else {})
    if path.suffix != ".safetensors" and magic[8:] != b"{":  # the header, behind its length
        raise InputError("it is not a file of weights of safetensors, PyTorch, Keras or Caffe")
    return Contents(*read_safetensors(path))


def _checked_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays without the prefix that DataParallel or torch.compile add to all names."""
    for name in arrays:
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            raise InputError(f"it has the name {name[:_LONGEST_NAME]!a}, which is not a name")
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays
