"""Networks at every position of larger images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import InputError, create_model, features
from resnet_jax.models import fully_convolutional

SMALL = {"num_classes": 7, "hidden_units": 16}

NETWORKS = {
    "vgg11": (224, 7, {"width": 4}),
    "vgg11_bn": (224, 7, {"width": 4}),
    "alexnet": (227, 6, {"filters": (8, 8, 8, 8, 8)}),
    "alexnet_torchvision": (224, 6, {"filters": (8, 8, 8, 8, 8)}),
    "zfnet": (224, 6, {"filters": (8, 8, 8, 8, 8)}),
}


def made(name):
    size, side, fields = NETWORKS[name]
    model = create_model(name, **SMALL, **fields)
    images = jax.random.normal(jax.random.key(1), (2, size, size, 3))
    with jax.default_prng_impl("rbg"):
        variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images)
    # What starts with a deviation of 0.01 would say next to nothing.
    variables["params"] = jax.tree.map(
        lambda x: x * jnp.sqrt(2 / x[..., 0].size) / x.std() if x.ndim > 1 else x,
        variables["params"],
    )
    return model, variables, images, side


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name.partition("_")[2] else [])
        for name in NETWORKS
    ],
)
def test_at_its_own_size_it_is_the_network_as_it_was_trained(name):
    model, variables, images, _ = made(name)
    expected = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    found = jax.jit(functools.partial(fully_convolutional(model), train=False))(variables, images)
    assert jnp.abs(expected).max() > 1e-2
    np.testing.assert_allclose(found, expected, atol=1e-5 * jnp.abs(expected).max())


@pytest.mark.parametrize("name", ["vgg11", "alexnet", "zfnet"])
def test_on_larger_images_layers_are_applied_to_one_window_after_another(name):
    model, variables, _, side = made(name)
    images = jax.random.normal(jax.random.key(2), (2, 256, 320, 3))
    last = {"vgg11": "conv5_2", "alexnet": "conv5", "zfnet": "conv5"}[name]
    maps = np.asarray(features(model, variables, images, (last,))[last])
    maps = np.asarray(jax.nn.relu(maps))
    if name == "vgg11":
        pooled = maps.reshape(2, 8, 2, 10, 2, -1).max(axis=(2, 4))
    else:
        border = [(0, 0), (0, 1), (0, 1), (0, 0)] if name == "zfnet" else [(0, 0)] * 4
        maps = np.pad(maps, border)
        rows, columns = ((s - 3) // 2 + 1 for s in maps.shape[1:3])
        pooled = np.stack(
            [
                [maps[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2)) for j in range(columns)]
                for i in range(rows)
            ]
        ).transpose(2, 0, 1, 3)
    params = jax.tree.map(np.asarray, variables["params"])
    scores = []
    for i in range(pooled.shape[1] - side + 1):
        for j in range(pooled.shape[2] - side + 1):
            x = pooled[:, i : i + side, j : j + side].reshape(2, -1)
            for layer in ("fc1", "fc2"):
                dense = params["hidden"][layer]
                x = np.maximum(x @ dense["kernel"] + dense["bias"], 0)
            scores.append(x @ params["head"]["kernel"] + params["head"]["bias"])
    assert len(scores) > 1
    expected = np.mean(scores, axis=0)
    found = fully_convolutional(model)(variables, images, train=False)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    resized = model.apply(variables, images, train=False)
    assert np.abs(resized - expected).max() > 1e-2 * np.abs(expected).max()


def test_maps_smaller_than_the_layers_are_refused():
    model, variables, _, _ = made("vgg11")
    with pytest.raises(InputError, match="maps are at least 7x7, and these are 5x7; take larger"):
        fully_convolutional(model)(variables, jnp.zeros((1, 160, 224, 3)), train=False)


def test_what_has_no_such_form_has_none():
    assert fully_convolutional(create_model("prelu_net_a")) is None
    assert fully_convolutional(create_model("lenet5")) is None
    assert fully_convolutional(create_model("resnet18")) is not None
