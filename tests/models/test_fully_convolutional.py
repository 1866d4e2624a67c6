"""Networks at every position of larger images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import InputError, create_model, features, list_models
from tests.models.shapes import shapes
from tests.models.torch_reference import QUICK, random_variables

FILTERS = {"filters": (4, 4, 4, 4, 4)}
ONE_STAGE = {"stage_sizes": (1,), "width": 4}

# Fields, pixels of the network's own images and of larger ones, the side of the windows, the last
# convolution, and zeros after the maps of the last pooling.
NETWORKS = {
    "vgg11": (ONE_STAGE, 14, (16, 20), 7, "conv1_1", 0),
    "vgg11_bn": (ONE_STAGE, 14, (16, 18), 7, "bn1_1", 0),
    "alexnet": (FILTERS, 227, (259, 291), 6, "conv5", 0),
    "alexnet_torchvision": (FILTERS, 224, (224, 256), 6, "conv5", 0),
    "zfnet": (FILTERS, 224, (256, 288), 6, "conv5", 1),
}


def made(name):
    fields, pixels, *_ = NETWORKS[name]
    model = create_model(name, num_classes=7, hidden_units=16, **fields)
    return model, random_variables(model, pixels)


def random_images(*shape):
    return np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)


def both_forms(model, variables, images):
    apply = functools.partial(model.apply, variables, images, train=False)
    return apply(), apply(method="fully_convolutional")


def pool(maps, size, stride, border):
    """Returns the max-pooled maps, window by window."""
    maps = np.pad(maps, [(0, 0), (0, border), (0, border), (0, 0)])
    rows, columns = (range(0, side - size + 1, stride) for side in maps.shape[1:3])
    return np.stack(
        [
            np.stack([maps[:, i : i + size, j : j + size].max((1, 2)) for j in columns], 1)
            for i in rows
        ],
        1,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_applied_to_one_window_after_another(name):
    _, pixels, larger, side, last, border = NETWORKS[name]
    model, variables = made(name)
    run = jax.jit(functools.partial(both_forms, model), compiler_options=QUICK)
    plain, dense = run(variables, random_images(pixels, pixels))
    np.testing.assert_allclose(dense, plain, rtol=0, atol=1e-5 * jnp.abs(plain).max())

    images = random_images(*larger)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def outputs(variables, images):
        maps = features(model, variables, images, (last,))[last]
        return jax.nn.relu(maps), both_forms(model, variables, images)

    maps, (resized, dense) = outputs(variables, images)
    pooled = pool(np.asarray(maps), *((2, 2) if side == 7 else (3, 2)), border)
    params = variables["params"]
    scores = []
    for i in range(pooled.shape[1] - side + 1):
        for j in range(pooled.shape[2] - side + 1):
            x = pooled[:, i : i + side, j : j + side].reshape(2, -1)
            for layer in ("fc1", "fc2"):
                p = params["hidden"][layer]
                x = np.maximum(x @ p["kernel"] + p["bias"], 0)
            scores.append(x @ params["head"]["kernel"] + params["head"]["bias"])
    assert len(scores) > 1
    expected = np.mean(scores, axis=0)
    np.testing.assert_allclose(dense, expected, rtol=0, atol=3e-5 * np.abs(expected).max())
    assert np.abs(resized - expected).max() > 3e-4 * np.abs(expected).max()


def test_maps_smaller_than_the_layers_are_refused():
    model, variables = create_model("vgg11"), shapes(create_model("vgg11"), 224)
    dense = functools.partial(model.apply, train=False, method="fully_convolutional")
    with pytest.raises(InputError, match="maps are at least 7x7, and these are 5x7; take larger"):
        jax.eval_shape(dense, variables, jax.ShapeDtypeStruct((1, 160, 224, 3), jnp.float32))


def test_networks_with_and_without_the_form():
    for name in list_models():
        expected = not name.startswith(("prelu_net", "lenet5"))
        assert hasattr(create_model(name), "fully_convolutional") == expected


def test_behind_global_pooling_it_is_the_network_itself():
    model = create_model("cifar_resnet8", stage_sizes=(1,), width=2)
    variables = random_variables(model, 8)
    run = jax.jit(functools.partial(both_forms, model), compiler_options=QUICK)
    np.testing.assert_allclose(*run(variables, random_images(9, 12)), rtol=1e-5, atol=1e-6)
