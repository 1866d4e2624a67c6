"""Small networks with random variables."""

from typing import Any

import numpy as np
from flax import traverse_util

from resnet_jax import BottleneckBlock, ResNet
from resnet_jax.interop import DialectName
from resnet_jax.interop.families import key_map
from resnet_jax.interop.formats.safetensors import write_safetensors
from resnet_jax.interop.weights import extra_shapes, network_shapes


def small_network(block=BottleneckBlock, **fields):
    """Returns a network of the form that other libraries have."""
    form: dict[str, Any] = {"stage_sizes": (1, 2), "width": 4, "num_classes": 5}
    form |= {"stride_on": "3x3", "pool_padding": (1, 1)}
    return ResNet(block=block, **(form | fields))


def random_arrays(network, channels=3, seed=0):
    """Returns every array of a network by our name, `batches_tracked` too."""
    rng = np.random.default_rng(seed)

    def draw(name, shape):
        if name.startswith("batches_tracked/"):
            return np.array(rng.integers(1000), np.int64)
        if name.endswith("/var"):
            return rng.uniform(0.5, 1.5, shape).astype(np.float32)
        return rng.normal(size=shape).astype(np.float32)

    shapes = network_shapes(network, channels)
    counts = {n: s for n, s in extra_shapes(shapes).items() if n.startswith("batches_tracked/")}
    return {name: draw(name, shape) for name, shape in (shapes | counts).items()}


def keys(network, dialect: DialectName):
    """Returns a library's key of each array that it has, by our name."""
    key = key_map(type(network), dialect).key
    found = {name: key(network, name) for name in random_arrays(network)}
    return {name: theirs for name, theirs in found.items() if theirs is not None}


def random_variables(network, channels=3, seed=0):
    """Returns its `params` and `batch_stats`."""
    arrays = random_arrays(network, channels, seed).items()
    flat = {name: array for name, array in arrays if not name.startswith("batches_tracked/")}
    return {"batch_stats": {}, **traverse_util.unflatten_dict(flat, sep="/")}


def write(
    path, network, dialect: DialectName = "torchvision", *, channels=3, change=lambda arrays: arrays
):
    """Writes a network with no more than its library would."""
    arrays = random_arrays(network, channels)
    found = keys(network, dialect)
    arrays = {theirs.name: theirs.to_theirs(arrays[name]) for name, theirs in found.items()}
    write_safetensors(path, change(arrays), {"format": "pt"})
    return path


def check_same(one, other):
    """Checks that arrays by name have the same names, shapes, types and bits."""
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert (array.shape, array.dtype) == (other[name].shape, other[name].dtype), name
        assert array.tobytes() == other[name].tobytes(), name
