"""The stream that says which tensors a `.pth` file has, read as data.

PyTorch writes the description of its tensors as a pickle. A pickle is a program for a machine with
a stack, and whoever lets Python run one runs what its author wanted. Here the few instructions
that descriptions of tensors are made of are interpreted; the names in it are compared with a list
and never looked up, nothing is imported or called, and all else is refused.
"""

import dataclasses
import pickletools
from collections.abc import Mapping
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from resnet_jax.errors import InputError

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
_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_SCALARS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}


@dataclasses.dataclass(frozen=True)
class Name:
    """A name of the list; what it names is not touched."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers in a row, in a member of the file.

    Attributes:
      dtype: Their type.
      key: Name of the member.
      size: How many there are said to be.
    """

    dtype: np.dtype
    key: str
    size: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What is said of a tensor; none of it has been compared with the file.

    Attributes:
      storage: Where its numbers are.
      offset: The first of them.
      shape: Its shape.
      strides: Steps in the storage, in numbers.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


Known: TypeAlias = Name | Storage | Tensor
Scalar: TypeAlias = bool | int | float | str | None
Value: TypeAlias = "Scalar | tuple[Value, ...] | list[Value] | dict[str | int, Value] | Known"


def read_stream(stream: bytes) -> Value:
    """Returns the value that a stream describes, of dicts, lists, tuples, scalars and tensors.

    Args:
      stream: A pickle of PyTorch's.

    Raises:
      InputError: It is damaged, or asks for anything else than tensors.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.step(opcode.name, argument)
        return machine.result()
    except InputError:
        raise
    except Exception as error:  # a broken stream can break anything: the parser, a stack, a type
        raise InputError(f"its description of the tensors is damaged ({error})") from error


class _Machine:
    """Stack, marks and memo."""

    def __init__(self) -> None:
        self._stack: list[Value] = []
        self._marks: list[int] = []
        self._memo: dict[int, Value] = {}

    def result(self) -> Value:
        (value,) = self._stack
        return value

    def step(self, opcode: str, argument: object) -> None:
        stack = self._stack
        match opcode, argument:
            case "PROTO" | "STOP", _:
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE", _:
                stack.append(_CONSTANTS[opcode])
            case _, (int() | float() | str()) as scalar if opcode in _SCALARS:
                stack.append(scalar)
            case "MARK", _:
                self._marks.append(len(stack))
            case "EMPTY_DICT", _:
                stack.append({})
            case "EMPTY_LIST", _:
                stack.append([])
            case "EMPTY_TUPLE", _:
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3", _:
                stack.append(self._take(int(opcode[-1])))
            case "TUPLE", _:
                stack.append(self._since_mark())
            case "APPEND", _:
                self._extend(self._take(1))
            case "APPENDS", _:
                self._extend(self._since_mark())
            case "SETITEM", _:
                self._set(self._take(2))
            case "SETITEMS", _:
                self._set(self._since_mark())
            case "BINPUT" | "LONG_BINPUT", int(place):
                self._memo[place] = stack[-1]
            case "BINGET" | "LONG_BINGET", int(place):
                stack.append(self._memo[place])
            case "GLOBAL", str(name):
                stack.append(_known(name))
            case "BINPERSID", _:
                stack.append(_storage(stack.pop()))
            case "REDUCE", _:
                stack.append(_make(*self._take(2)))
            case "BUILD", _:
                stack.pop()  # attributes of an OrderedDict: versions of torch's modules
            case _:
                raise InputError(
                    f"it has the instruction {opcode}, which tensors do not need; nothing was run"
                )

    def _take(self, count: int) -> tuple[Value, ...]:
        if len(self._stack) < count:
            raise IndexError("too few values")
        taken = tuple(self._stack[-count:])
        del self._stack[-count:]
        return taken

    def _since_mark(self) -> tuple[Value, ...]:
        return self._take(count) if (count := len(self._stack) - self._marks.pop()) else ()

    def _extend(self, values: tuple[Value, ...]) -> None:
        match self._stack[-1]:
            case list() as values_before:
                values_before.extend(values)
            case _:
                raise TypeError("values for what is no list")

    def _set(self, items: tuple[Value, ...]) -> None:
        target = self._stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(target, dict) or not isinstance(key, str | int):
                raise TypeError("items for what is no dict of names")
            target[key] = value


def _known(name: str) -> Name:
    if name not in {_DICT, _TENSOR, _PARAMETER, *_STORAGES}:
        raise InputError(
            f"it asks for {name.replace(' ', '.')}, which is no tensor; nothing was run"
        )
    return Name(name)


def _storage(identity: Value) -> Storage:
    match identity:
        case ("storage", Name(name), str(key), str(), int(size)) if name in _STORAGES:
            return Storage(_STORAGES[name], key, size)
        case _:
            raise ValueError("a storage of an unknown kind")


def _make(function: Value, arguments: Value) -> Value:
    match function, arguments:
        case Name(name), () if name == _DICT:
            return {}
        case Name(name), (Storage() as storage, int(offset), shape, strides, *_) if name == _TENSOR:
            return Tensor(storage, offset, _integers(shape), _integers(strides))
        case Name(name), (Tensor() as tensor, *_) if name == _PARAMETER:
            return tensor
        case _:
            raise InputError("it calls what is no tensor; nothing was run")


def _integers(values: Value) -> tuple[int, ...]:
    if not isinstance(values, tuple):
        raise TypeError("a shape that is no tuple")
    integers = tuple(value for value in values if type(value) is int)
    if len(integers) < len(values):
        raise TypeError("a shape that is not of integers")
    return integers
