import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models.layers import DropoutOn, HiddenLayers

RATE, WIDTH = 0.25, 400
X = np.random.default_rng(0).uniform(0.5, 1.5, (8, WIDTH)).astype(np.float32)
IDENTITY = {"kernel": np.eye(WIDTH, dtype=np.float32), "bias": np.zeros(WIDTH, np.float32)}
VARIABLES = {"params": {"fc1": IDENTITY, "fc2": IDENTITY}}


def outputs(key=0, rate=RATE, train=True, on: DropoutOn = "outputs"):
    module = HiddenLayers(WIDTH, rate, dropout_on=on)
    return module.apply(VARIABLES, X, train=train, rngs={"dropout": jax.random.key(key)})


@pytest.mark.parametrize("on", ["outputs", "inputs"])
def test_units_are_dropped_and_the_others_scaled(on):
    y = np.asarray(outputs(on=on))
    # Both layers are the identity here, so that each unit meets two draws in a row.
    assert np.mean(y != 0) == pytest.approx((1 - RATE) ** 2, abs=0.03)
    np.testing.assert_allclose(y[y != 0], X[y != 0] / (1 - RATE) ** 2, rtol=1e-6)
    np.testing.assert_array_equal(y, outputs(on=on))
    assert (y != outputs(1, on=on)).any()


@pytest.mark.parametrize("on", ["outputs", "inputs"])
def test_evaluation_drops_nothing(on):
    np.testing.assert_array_equal(outputs(train=False, on=on), X)
    np.testing.assert_array_equal(outputs(rate=0.0, on=on), X)


def test_dropped_outputs_leave_zeros_and_dropped_inputs_leave_biases():
    params = {"kernel": IDENTITY["kernel"], "bias": np.full(WIDTH, 3, np.float32)}

    def zeros(on):
        module = HiddenLayers(WIDTH, 0.5, dropout_on=on)
        variables = {"params": {"fc1": params, "fc2": params}}
        y = module.apply(variables, X, train=True, rngs={"dropout": jax.random.key(0)})
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
