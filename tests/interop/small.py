"""Small networks with random variables."""

from typing import Any

import numpy as np
from flax import traverse_util

from resnet_jax import BottleneckBlock, ResNet
from resnet_jax.interop import DialectName
from resnet_jax.interop.form import expected_shapes
from resnet_jax.interop.naming import foreign_name, to_foreign
from resnet_jax.interop.safetensors_file import write_safetensors


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

    shapes = expected_shapes(network, channels)
    return {name: draw(name, shape) for name, shape in shapes.items()}


def random_variables(network, channels=3, seed=0):
    """Returns its `params` and `batch_stats`."""
    arrays = random_arrays(network, channels, seed).items()
    flat = {name: array for name, array in arrays if not name.startswith("batches_tracked/")}
    return traverse_util.unflatten_dict(flat, sep="/")


def write(
    path, network, dialect: DialectName = "torchvision", *, channels=3, change=lambda arrays: arrays
):
    """Writes a network with no more than its library would."""
    arrays = {
        foreign_name(dialect, name): to_foreign(dialect, array)
        for name, array in random_arrays(network, channels).items()
    }
    write_safetensors(path, change(arrays), {"format": "pt"})
    return path
