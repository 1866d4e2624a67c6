"""Layers that several families share."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resnet_jax.models.layers import (
    DropoutOn,
    HiddenLayers,
    adaptive_pool,
    he_normal,
    local_response_norm,
)

RATE, WIDTH = 0.25, 400
INPUTS = np.random.default_rng(0).uniform(0.5, 1.5, (8, WIDTH)).astype(np.float32)
IDENTITY = {"kernel": np.eye(WIDTH, dtype=np.float32), "bias": np.zeros(WIDTH, np.float32)}
VARIABLES = {"params": {"fc1": IDENTITY, "fc2": IDENTITY}}


def outputs(key=0, rate=RATE, train=True, on: DropoutOn = "outputs"):
    module = HiddenLayers(WIDTH, rate, dropout_on=on)
    return module.apply(VARIABLES, INPUTS, train=train, rngs={"dropout": jax.random.key(key)})


@pytest.mark.parametrize("on", ["outputs", "inputs"])
def test_units_are_dropped_and_the_others_scaled(on):
    y = np.asarray(outputs(on=on))
    # Both layers are the identity here, so that each unit meets two draws in a row.
    assert np.mean(y != 0) == pytest.approx((1 - RATE) ** 2, abs=0.03)
    np.testing.assert_allclose(y[y != 0], INPUTS[y != 0] / (1 - RATE) ** 2, rtol=1e-6)
    np.testing.assert_array_equal(y, outputs(on=on))
    assert (y != outputs(1, on=on)).any()


@pytest.mark.parametrize("on", ["outputs", "inputs"])
def test_evaluation_drops_nothing(on):
    np.testing.assert_array_equal(outputs(train=False, on=on), INPUTS)
    np.testing.assert_array_equal(outputs(rate=0.0, on=on), INPUTS)


def test_dropped_outputs_leave_zeros_and_dropped_inputs_leave_biases():
    params = {"kernel": IDENTITY["kernel"], "bias": np.full(WIDTH, 3, np.float32)}

    def zeros(on):
        module = HiddenLayers(WIDTH, 0.5, dropout_on=on)
        variables = {"params": {"fc1": params, "fc2": params}}
        y = module.apply(variables, INPUTS, train=True, rngs={"dropout": jax.random.key(0)})
        return float(jnp.mean(y == 0))

    assert zeros("outputs") == pytest.approx(0.5, abs=0.05)
    assert zeros("inputs") == 0


def test_init_needs_no_key_for_dropout():
    module = HiddenLayers(4)
    x = jnp.ones((1, 3))
    training = module.init({"params": jax.random.key(0)}, x, train=True)
    jax.tree.map(
        np.testing.assert_array_equal, training, module.init(jax.random.key(0), x, train=False)
    )


MAPS = np.random.default_rng(0).normal(0, 30, (2, 3, 3, 9)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=MAPS.shape).astype(np.float32)


def formula(x, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Returns the formula of Krizhevsky et al., section 3.3, unit by unit."""
    y = np.empty(x.shape)
    channels = x.shape[-1]
    for where in np.ndindex(x.shape):
        *position, i = where
        total = 0.0
        for j in range(max(0, i - n // 2), min(channels - 1, i + n // 2) + 1):
            total += float(x[*position, j]) ** 2
        y[where] = x[where] / (k + alpha * total) ** beta
    return y


def test_response_normalisation_equals_the_formula():
    np.testing.assert_allclose(local_response_norm(jnp.asarray(MAPS)), formula(MAPS), rtol=2e-6)


def test_response_normalisation_equals_torch_which_divides_alpha_by_the_size():
    torch = pytest.importorskip("torch")
    x = torch.tensor(MAPS, dtype=torch.float64, requires_grad=True)
    y = torch.nn.functional.local_response_norm(x.permute(0, 3, 1, 2), 5, 5e-4, 0.75, 2.0)
    y = y.permute(0, 2, 3, 1)
    (y * torch.tensor(WEIGHTS)).sum().backward()
    np.testing.assert_allclose(local_response_norm(jnp.asarray(MAPS)), y.detach(), rtol=2e-6)
    gradient = jax.grad(lambda x: (local_response_norm(x) * WEIGHTS).sum())(MAPS)
    np.testing.assert_allclose(gradient, x.grad, rtol=0, atol=2e-6 * float(x.grad.abs().max()))


def test_response_normalisation_in_bfloat16_loses_no_more_than_its_own_digits():
    y = local_response_norm(jnp.asarray(MAPS, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        y.astype(jnp.float32), local_response_norm(jnp.asarray(MAPS)), rtol=0.02
    )


@pytest.mark.parametrize(("height", "width"), [(14, 7), (1, 13)])
@pytest.mark.parametrize("bins", [3, 7])
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_adaptive_pooling_equals_the_definition_and_torch(height, width, bins, reduce):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    found = adaptive_pool(jnp.asarray(x), bins, getattr(jnp, reduce))

    def cells(size):
        step = size / bins
        return [slice(math.floor(i * step), math.ceil((i + 1) * step)) for i in range(bins)]

    expected = np.array(
        [[getattr(x[:, r, c], reduce)((1, 2)) for c in cells(width)] for r in cells(height)]
    ).transpose(2, 0, 1, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    torch = pytest.importorskip("torch")
    pool = {"mean": "adaptive_avg_pool2d", "max": "adaptive_max_pool2d"}[reduce]
    theirs = getattr(torch.nn.functional, pool)(torch.tensor(x.transpose(0, 3, 1, 2)), bins)
    np.testing.assert_allclose(found, theirs.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


def test_a_side_of_as_many_bins_stays_as_it_is():
    x = jnp.arange(2.0 * 6 * 6).reshape(2, 6, 6, 1)
    assert adaptive_pool(x, 6) is x


@pytest.mark.parametrize("shape", [(3, 3, 5, 7), (1, 1, 6, 4), (6, 5)])
def test_he_normal_draws_the_numbers_of_the_general_initialiser(shape):
    general = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
    key = jax.random.key(1)
    np.testing.assert_array_equal(
        he_normal(key, shape, jnp.float32), general(key, shape, jnp.float32)
    )
