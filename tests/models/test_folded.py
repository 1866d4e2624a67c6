import functools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import traverse_util

from resnet_jax import create_model
from resnet_jax.models import apply_folded, image_shape

NETWORKS = {
    "resnet50": {"stage_sizes": (1, 1), "width": 4, "bn_epsilon": 1e-3},
    "cifar_plain20": {"stage_sizes": (1, 1), "width": 4},
    "vgg11_bn": {"stage_sizes": (1, 1), "width": 4, "hidden_units": 8},  # biases too
    "googlenet_bn": {"auxiliary_heads": False},
    "bn_inception": {},
    "lenet5": {},  # without batch normalisation
}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        pytest.param(*network, id=network[0], marks=[pytest.mark.slow] * ("ception" in network[0]))
        for network in NETWORKS.items()
    ],
)
def test_a_folded_network_has_the_same_outputs(name, fields):
    model = create_model(name, num_classes=5, **fields)
    height, width, channels = image_shape(name)
    images = jax.random.normal(jax.random.key(1), (2, min(height, 64), min(width, 64), channels))
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)
    random = np.random.default_rng(0)

    def draw(path, shape):  # statistics and scales that are far from one and from zero
        if path[-1] in ("var", "scale"):
            return random.uniform(0.5, 2, shape.shape).astype(np.float32)
        return random.normal(0, 1 / np.sqrt(np.prod(shape.shape[:-1]) + 1), shape.shape).astype(
            np.float32
        )

    flat = {path: draw(path, x) for path, x in traverse_util.flatten_dict(shapes).items()}
    variables = traverse_util.unflatten_dict(flat)
    plain = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    folded = jax.jit(functools.partial(apply_folded, model))(variables, images)
    np.testing.assert_allclose(folded, plain, rtol=0, atol=1e-4 * np.abs(plain).max())
    assert np.abs(plain[0] - plain[1]).max() > 1e-3 * np.abs(plain).max()
    for path, leaf in traverse_util.flatten_dict(variables).items():  # left as they were
        assert leaf is flat[path]


def test_folding_is_the_same_program_in_every_process():
    """Or programs in a cache would not be found again."""
    script = """
import jax, jax.numpy as jnp, hashlib
from resnet_jax import create_model
from resnet_jax.models import apply_folded, variable_shapes
model = create_model("cifar_resnet8", width=2)
run = jax.jit(lambda v, x: apply_folded(model, v, x))
images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
text = run.lower(variable_shapes(model, (32, 32, 3)), images).as_text()
print(hashlib.sha256(text.encode()).hexdigest())
"""
    hashes = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1
