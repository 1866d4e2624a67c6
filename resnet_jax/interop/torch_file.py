"""Files of PyTorch (`.pth`, `.pt`, `.bin`), read without PyTorch and without unpickling.

Such a file is a zip archive that is not compressed: `NAME/data.pkl` describes the tensors, and
`NAME/data/0`, `NAME/data/1`, ... are their numbers. What the description claims is compared with
the archive, and the archive with the size of the file, before anything is allocated.
"""

import math
import zipfile

import numpy as np
from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.interop.archive import checked_members
from resnet_jax.interop.torch_stream import Storage, Tensor, Value, read_stream

ZIP_MAGIC = b"PK\x03\x04"

_MOST_DESCRIPTION = 2**24
"""Bytes of a description of tensors; ResNet-152's has 100 kB."""

_MOST_DIMENSIONS = 8


def read_torch(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Returns the tensors of a file that `torch.save` wrote.

    The file holds a dict of tensors, as a module's `state_dict()` is; one under "state_dict" or
    "model", beside other things, will do.

    Args:
      path: The file.

    Returns:
      The tensors by name, in the types that they have there; they cannot be written to.

    Raises:
      InputError: It is no such file, is damaged, or asks for anything else than tensors.
    """
    path = epath.Path(path)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return _Reader(archive, path.stat().length).tensors()
    except InputError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # a broken archive can raise anything in zipfile
        raise InputError(f"{path} cannot be read: its archive is damaged ({error})") from error


class _Reader:
    """Reads one archive."""

    def __init__(self, archive: zipfile.ZipFile, file_size: int) -> None:
        self._archive = archive
        self._members = checked_members(archive, file_size, "torch")
        self._spare = file_size  # bytes that tensors may still have
        self._storages: dict[str, bytes] = {}
        descriptions = [name for name in self._members if name.endswith("/data.pkl")]
        if len(descriptions) != 1:
            raise InputError(
                f"it has {len(descriptions)} descriptions of tensors (data.pkl), not 1"
            )
        self._description = descriptions[0]
        self._prefix = self._description.removesuffix("data.pkl")
        order = self._members.get(self._prefix + "byteorder")
        if order is not None and (order.file_size > 6 or archive.read(order) != b"little"):
            raise InputError("its numbers are not in little-endian order")

    def tensors(self) -> dict[str, np.ndarray]:
        if self._members[self._description].file_size > _MOST_DESCRIPTION:
            raise InputError("its description of the tensors is longer than any network's")
        value = read_stream(self._archive.read(self._description))
        described = _state_dict(value)
        return {name: self._array(name, tensor) for name, tensor in described.items()}

    def _array(self, name: str, tensor: Tensor) -> np.ndarray:
        storage, offset = tensor.storage, tensor.offset
        shape, strides = tensor.shape, tensor.strides
        if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS:
            raise InputError(f"{name} has {len(shape)} dimensions and {len(strides)} strides")
        if offset < 0 or min(shape, default=1) < 1 or min(strides, default=0) < 0:
            raise InputError(f"{name} has the shape {shape}, strides {strides} and offset {offset}")
        # In Python's integers, which do not overflow.
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        numbers = self._numbers(name, storage)
        if last >= storage.size:
            raise InputError(f"{name} reaches beyond the {storage.size} numbers of its storage")
        count = math.prod(shape)
        self._spare -= count * storage.dtype.itemsize  # strides of 0 could make much of little
        if self._spare < 0:
            raise InputError(f"its tensors up to {name} are larger than the file")
        size = storage.dtype.itemsize
        return np.ndarray(
            shape, storage.dtype, numbers, offset * size, tuple(step * size for step in strides)
        )

    def _numbers(self, name: str, storage: Storage) -> bytes:
        member = self._members.get(f"{self._prefix}data/{storage.key}")
        if member is None:
            raise InputError(f"{name} is in data/{storage.key}, which it does not have")
        if member.file_size != storage.size * storage.dtype.itemsize:
            raise InputError(
                f"{name} is in data/{storage.key}, which has {member.file_size} bytes and not "
                f"{storage.size} numbers of type {storage.dtype.name}"
            )
        if storage.key not in self._storages:
            self._storages[storage.key] = self._archive.read(member)
        return self._storages[storage.key]


def _state_dict(value: Value) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
            break
    if not isinstance(value, dict) or not value:
        raise InputError("it holds no dict of tensors, such as a module's state_dict()")
    tensors = {}
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{name!r} is no tensor; save the module's state_dict() alone")
        tensors[name] = tensor
    return tensors
