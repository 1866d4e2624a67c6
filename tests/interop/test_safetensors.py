"""Files of safetensors that are damaged, or lie."""

import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import InputError
from resnet_jax.interop import load_pretrained, save_pretrained
from resnet_jax.interop.formats.safetensors import read_safetensors, write_safetensors
from tests.interop.refusals import refused
from tests.interop.small import random_variables, small_network


def test_arrays_of_all_kinds_and_strings_come_back(tmp_path):
    base = np.arange(6, dtype=np.float32).reshape(2, 3)
    kinds = (np.float64, np.float32, np.float16, jnp.bfloat16, np.int64, np.uint8, np.bool_)
    arrays = {np.dtype(kind).name: base.astype(kind) for kind in kinds}
    arrays |= {"transposed": base.T, "scalar": np.array(3, np.int64), "part": base[:, ::2]}
    write_safetensors(tmp_path / "a.safetensors", arrays, {"key": "välue"})
    found, metadata = read_safetensors(tmp_path / "a.safetensors")
    assert found.keys() == arrays.keys()
    assert metadata == {"key": "välue"}
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)
    write_safetensors(tmp_path / "b.safetensors", arrays, {})
    assert read_safetensors(tmp_path / "b.safetensors")[1] == {}


def test_an_object_store_is_read_and_written(object_store):
    arrays = {"a": np.ones(2, np.float32)}
    write_safetensors(object_store / "a.safetensors", arrays, {})
    np.testing.assert_array_equal(read_safetensors(object_store / "a.safetensors")[0]["a"], 1)


def with_header(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(shape, end, *, start=0, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a file of safetensors"),
        (struct.pack("<Q", 2**60) + b"{}", "is not a file of safetensors"),
        (with_header(b"not JSON"), "is not a file of safetensors"),
        (with_header({"a": one([2**50], 2**52)}), "is not a file of safetensors"),
        (with_header({"a": one([1], 8, start=4)}, bytes(4)), "is not a file of safetensors"),
        (
            with_header({"a": one([1], 4), "b": one([1], 6, start=2)}, bytes(6)),
            "is not a file of safetensors",
        ),
        (with_header({"a": one([2**50, 0], 0)}), r"a is of type F32 and shape \(112589990684262"),
        (with_header({"a": one([4], 4, dtype="F8_E4M3")}, bytes(4)), "a is of type F8_E4M3"),
        (with_header({"a\x1b[2J": one([1], 4)}, bytes(4)), r"has the name 'a\\x1b\[2J'"),
        (
            with_header({"a": one([1], 4)}, bytes(4)),
            "is not a network that is known here: it has none of",
        ),
    ],
)
def test_a_file_that_lies_is_refused_and_nothing_allocated(tmp_path, content, message):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    refused(path, message, most=5e6)


def test_a_truncated_file_is_refused(tmp_path):
    network, path = small_network(), tmp_path / "a.safetensors"
    save_pretrained(network, random_variables(network), path, to="torchvision")
    content = path.read_bytes()
    for length in (*range(1, 200, 13), 1000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="cannot be read: it is not a file of safetensors"):
            load_pretrained(path)
