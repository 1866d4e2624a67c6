"""Receptive fields, against what really reaches an output: a NaN in a pixel does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from resnet_jax import BottleneckBlock, ResidualBlock, ResNet
from resnet_jax.analysis import summarize
from tests.models.torch_reference import QUICK, random_variables


def reach(model, pixels, names, *, axis):
    """Returns how many rows (or columns) reach the middle of named submodules' outputs."""
    variables = random_variables(model, pixels)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def outputs():
        lines = jnp.where(jnp.eye(pixels, dtype=bool), jnp.nan, 1.0)  # a line's number: the image
        lines = jnp.expand_dims(lines, (3 - axis, 3))
        images = jnp.broadcast_to(lines, (pixels, pixels, pixels, 3))
        _, sown = model.apply(
            variables, images, train=False, capture_intermediates=True, mutable=["intermediates"]
        )
        return sown["intermediates"]

    found = outputs()
    reached = {}
    for name in names:
        value = functools.reduce(lambda tree, key: tree[key], name.split("/"), found)
        value = np.asarray(value["__call__"][0])
        middle = value[:, value.shape[1] // 2, value.shape[2] // 2]
        (lines,) = np.nonzero(np.isnan(middle).any(-1))
        assert lines[0] > 0
        assert lines[-1] < pixels - 1, "the receptive field must fit into the image"
        reached[name] = lines[-1] - lines[0] + 1
    return reached


def check(model, pixels):
    fields = {
        layer.name: layer.receptive_field for layer in summarize(model, (pixels, pixels, 3)).layers
    }
    names = [name for name in fields if name.split("/")[0] != "head" and "pool" not in name]
    assert names
    for axis in (1, 2):
        assert reach(model, pixels, names, axis=axis) == {n: fields[n][axis - 1] for n in names}


@pytest.mark.parametrize(
    ("model", "pixels"),
    [
        (ResNet((1, 1), block=ResidualBlock, width=2, shortcut="A"), 80),
        (ResNet((1, 2), block=BottleneckBlock, width=2, stride_on="3x3", pool_padding=(1, 1)), 64),
        (ResNet((1, 1, 1), block=ResidualBlock, width=2, stem="cifar", output_stride=1), 48),
    ],
)
def test_of_residual_networks(model, pixels):
    check(model, pixels)


class Odd(nn.Module):
    """Operations that residual networks do not have, each with its sides exchanged somewhere."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(4, (5, 3), (2, 1), padding=((3, 0), (0, 1)), feature_group_count=1, name="a")(x)
        x = nn.pooling.pool(x, 0.0, lax.add, (1, 3), (1, 2), ((0, 0), (2, 0)))
        x = nn.Conv(4, (3, 2), kernel_dilation=(1, 3), padding="VALID", name="b")(x)
        left, right = jnp.split(x, 2, axis=-1)
        x = jnp.concatenate([left[:, 1:-1], lax.square(right)[:, :-2]], axis=-1)
        x = nn.Conv(4, (1, 1), name="c")(x[:, ::2])
        x = jnp.maximum(x[:, :-1], x[:, 1:])  # a pool made of slices
        x = jnp.pad(x, ((0, 0), (2, 0), (0, 3), (0, 0)))
        x = nn.Dense(3, name="d")(x)  # at every pixel
        return nn.Conv(2, (1, 3), padding="SAME", name="e")(x)


def test_of_unusual_operations():
    check(Odd(), 40)
    layers = {layer.name: layer for layer in summarize(Odd(), (40, 40, 3)).layers}
    assert (layers["d"].kind, layers["d"].filter) == ("conv", (1, 1, 4))
    assert layers["avg_pool"].filter == (1, 3)
    assert layers["avg_pool"].padding == ((0, 0), (2, 0))
    assert layers["b"].dilation == (1, 3)


class Gate(nn.Module):
    """Squeeze and excitation: every position depends on all others."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        weights = nn.sigmoid(nn.Dense(4, name="squeeze")(x.mean((1, 2))))
        x = x * weights[:, None, None]
        return nn.Conv(4, (3, 3), name="after")(x)


def test_of_a_global_operation_is_the_image_and_its_padding():
    fields = {layer.name: layer.receptive_field for layer in summarize(Gate(), (9, 7, 3)).layers}
    assert fields == {
        "conv": (3, 3),
        "avg_pool": (11, 9),
        "squeeze": (11, 9),
        "after": (11, 9),
    }


class Arranged(nn.Module):
    """What loses track of the pixels may only give more of them."""

    @nn.compact
    def __call__(self, x, *, train):
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, h // 2, w // 2, 4 * c)[:, jnp.array([1, 0, 2])]
        return nn.Conv(4, (2, 2), name="conv")(x)


def test_of_what_cannot_be_followed_is_the_whole_image():
    (layer,) = summarize(Arranged(), (6, 8, 3)).layers
    assert layer.receptive_field == (6, 8)
    assert (layer.output, layer.multiply_adds) == ((3, 4, 4), 3 * 4 * 4 * 2 * 2 * 12)
