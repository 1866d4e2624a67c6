"""Files of PyTorch (`.pth`, `.pt`, `.bin`), read without PyTorch and without unpickling.

Such a file is a zip archive without compression: `NAME/data.pkl` describes the tensors, and
`NAME/data/0`, `NAME/data/1`, ... are their numbers.

The description is a pickle: a program for a machine with a stack, which does whatever its author
wanted if Python runs it. Here the few instructions that tensors need are interpreted as data; names
are compared with a list and never looked up, nothing is imported or called, and every other
instruction is refused. The sizes in it are compared with the archive, and the archive with the
size of the file, before anything is allocated.
"""

import math
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, cast

import jax.numpy as jnp
import numpy as np
from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.interop.formats import checked_members, refusing

ZIP_MAGIC = b"PK\x03\x04"

_MOST_DESCRIPTION = 2**24
"""Bytes of a description of tensors; ResNet-152's has 100 kB."""

_MOST_DIMENSIONS = 8
_STORAGES: Mapping[str, np.dtype] = {
    f"torch {name}Storage": np.dtype(dtype)
    for name, dtype in {
        "Double": np.float64,
        "Float": np.float32,
        "Half": np.float16,
        "BFloat16": jnp.bfloat16,
        "Long": np.int64,
        "Int": np.int32,
        "Short": np.int16,
        "Char": np.int8,
        "Byte": np.uint8,
        "Bool": np.bool_,
    }.items()
}
_NAMES = {
    *("collections OrderedDict", "torch._utils _rebuild_tensor_v2"),
    *("torch._utils _rebuild_parameter", *_STORAGES),
}
_NEW: Mapping[str, Callable[[], "_Value"]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_SCALARS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}


class _Name(NamedTuple):
    """A name of the list."""

    name: str


class _Storage(NamedTuple):
    """Numbers in a member of the archive, as the description has them: how many, of which type."""

    dtype: np.dtype
    key: str
    size: int


class _Tensor(NamedTuple):
    """A tensor as the description has it, not compared with the file yet; strides in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_Known: TypeAlias = _Name | _Storage | _Tensor | bool | int | float | str | None
_Value: TypeAlias = "_Known | tuple[_Value, ...] | list[_Value] | dict[str | int, _Value]"


def read_torch(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Returns the tensors of a file that `torch.save` wrote.

    The file holds a dict of tensors, as a module's `state_dict()` is, alone or under the key
    "state_dict" or "model" of another dict. They keep their types, and cannot be written to.
    """
    path = epath.Path(path)
    with (
        refusing("its archive is damaged"),
        path.open("rb") as file,
        zipfile.ZipFile(file) as archive,
    ):
        return _read(archive, path.stat().length)


def _read(archive: zipfile.ZipFile, file_size: int) -> dict[str, np.ndarray]:
    members = checked_members(archive, file_size, "torch")
    descriptions = [name for name in members if name.endswith("/data.pkl")]
    if len(descriptions) != 1:
        raise InputError(f"it has {len(descriptions)} descriptions of tensors (data.pkl), not 1")
    prefix = descriptions[0].removesuffix("data.pkl")
    order = members.get(prefix + "byteorder")
    if order is not None and (order.file_size > 6 or archive.read(order) != b"little"):
        raise InputError("its numbers are not in little-endian order")
    if members[descriptions[0]].file_size > _MOST_DESCRIPTION:
        raise InputError("its description of the tensors is longer than any network's")
    storages: dict[str, bytes] = {}
    arrays, spare = {}, file_size
    for name, tensor in _state_dict(_interpret(archive.read(descriptions[0]))).items():
        (dtype, key, size), offset, shape, strides = tensor
        least = min((offset, *strides, *(n - 1 for n in shape)))
        if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS or least < 0:
            raise InputError(f"{name} has the shape {shape}, strides {strides} and offset {offset}")
        member = members.get(f"{prefix}data/{key}")
        if member is None:
            raise InputError(f"{name} is in data/{key}, which it does not have")
        if member.file_size != size * dtype.itemsize:
            raise InputError(
                f"{name} is in data/{key}, which has {member.file_size} bytes and not "
                f"{size} numbers of type {dtype.name}"
            )
        # In Python's integers, which do not overflow.
        if offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) >= size:
            raise InputError(f"{name} reaches beyond the {size} numbers of its storage")
        spare -= math.prod(shape) * dtype.itemsize  # strides of 0 make much of little
        if spare < 0:
            raise InputError(f"its tensors up to {name} are larger than the file")
        if key not in storages:
            storages[key] = archive.read(member)
        steps = tuple(step * dtype.itemsize for step in strides)
        arrays[name] = np.ndarray(shape, dtype, storages[key], offset * dtype.itemsize, steps)
    return arrays


def _state_dict(value: _Value) -> dict[str, _Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
            break
    if not isinstance(value, dict) or not value:
        raise InputError("it holds no dict of tensors, such as a module's state_dict()")
    tensors = {}
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise InputError(f"{name!r} is not a tensor; save the module's state_dict() alone")
        tensors[name] = tensor
    return tensors


def _interpret(description: bytes) -> _Value:
    """Returns the value that a pickle describes, of dicts, lists, tuples, scalars and tensors."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def take(count: int) -> tuple[Any, ...]:
        if len(stack) < count:
            raise IndexError("too few values")
        taken = tuple(stack[len(stack) - count :])
        del stack[len(stack) - count :]
        return taken

    def step(opcode: str, argument: object) -> None:
        match opcode, argument:
            case "PROTO" | "STOP", _:
                pass
            case _, _ if opcode in _NEW:
                stack.append(_NEW[opcode]())
            case _, (int() | float() | str()) as scalar if opcode in _SCALARS:
                stack.append(scalar)
            case "MARK", _:
                marks.append(len(stack))
            case "TUPLE1" | "TUPLE2" | "TUPLE3", _:
                stack.append(take(int(opcode[-1])))
            case "TUPLE", _:
                stack.append(take(len(stack) - marks.pop()))
            case "APPEND" | "APPENDS", _:
                values = take(1 if opcode == "APPEND" else len(stack) - marks.pop())
                _checked(stack[-1], list).extend(values)
            case "SETITEM" | "SETITEMS", _:
                items = take(2 if opcode == "SETITEM" else len(stack) - marks.pop())
                for key, value in zip(items[::2], items[1::2], strict=True):
                    _checked(stack[-1], dict)[_checked(key, (str, int))] = value
            case "BINPUT" | "LONG_BINPUT", int(slot):
                memo[slot] = stack[-1]
            case "BINGET" | "LONG_BINGET", int(slot):
                stack.append(memo[slot])
            case "GLOBAL", str(name):
                if name not in _NAMES:
                    asked = name.replace(" ", ".")
                    raise InputError(f"it asks for {asked}, which is not a tensor; nothing was run")
                stack.append(_Name(name))
            case "BINPERSID", _:
                stack.append(_storage(stack.pop()))
            case "REDUCE", _:
                stack.append(_make(*take(2)))
            case "BUILD", _:
                stack.pop()  # attributes of an OrderedDict: versions of torch's modules
            case _:
                raise InputError(
                    f"it has the instruction {opcode}, which tensors do not need; nothing was run"
                )

    with refusing("its description of the tensors is damaged"):
        for opcode, argument, _ in pickletools.genops(description):
            step(opcode.name, argument)
        (value,) = stack
        return value


def _checked(value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where something else belongs")
    return value


def _storage(identity: _Value) -> _Storage:
    match identity:
        case ("storage", _Name(name), str(key), str(), int(size)) if name in _STORAGES:
            return _Storage(_STORAGES[name], key, size)
        case _:
            raise ValueError("a storage of an unknown kind")


def _make(function: _Value, arguments: _Value) -> _Value:
    match function, arguments:
        case _Name("collections OrderedDict"), ():
            return {}
        case (
            _Name("torch._utils _rebuild_tensor_v2"),
            (_Storage() as storage, int(offset), shape, strides, *_),
        ):
            return _Tensor(storage, offset, _integers(shape), _integers(strides))
        case _Name("torch._utils _rebuild_parameter"), (_Tensor() as tensor, *_):
            return tensor
        case _:
            raise InputError("it calls something that is not a tensor; nothing was run")


def _integers(values: _Value) -> tuple[int, ...]:
    if not isinstance(values, tuple) or any(type(value) is not int for value in values):
        raise TypeError("a shape that is not a tuple of integers")
    return cast(tuple[int, ...], values)
