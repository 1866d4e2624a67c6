"""Files of safetensors: arrays by name, and strings by name."""

import json
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.files import write_atomically

_DTYPES: Mapping[str, np.dtype] = {
    name: np.dtype(dtype)
    for name, dtype in {
        "F64": np.float64,
        "F32": np.float32,
        "F16": np.float16,
        "BF16": jnp.bfloat16,
        "I64": np.int64,
        "I32": np.int32,
        "I16": np.int16,
        "I8": np.int8,
        "U8": np.uint8,
        "BOOL": np.bool_,
    }.items()
}


def read_safetensors(path: epath.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays and the metadata of a file."""
    content = path.read_bytes()
    try:
        # It compares the sizes in the header with the length of the content.
        views = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise InputError(f"it is not a file of safetensors: {error}") from error
    arrays = {}
    for name, view in views:
        if 0 in view["shape"] or view["dtype"] not in _DTYPES:
            shape = tuple(view["shape"])
            raise InputError(f"{name} is of type {view['dtype']} and shape {shape}")
        flat = np.frombuffer(view["data"], _DTYPES[view["dtype"]])
        arrays[name] = flat.reshape(view["shape"])
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    return arrays, json.loads(header).get("__metadata__") or {}


def write_safetensors(
    path: epath.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes arrays and strings by name, the whole file or none."""
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_atomically(path, safetensors.numpy.save(contiguous, dict(metadata)))
