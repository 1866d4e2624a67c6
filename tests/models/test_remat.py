"""Blocks that are computed again instead of kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax import ResidualBlock, ResNet
from tests.models.shapes import shapes
from tests.models.torch_reference import QUICK, random_variables

PIXELS = 16
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, PIXELS, PIXELS, 3)), jnp.float32)
# XLA's compiler for CPUs alone removes the barriers behind which blocks are computed again, and
# then sees that they were computed before.
AS_ON_ACCELERATORS = {**QUICK, "xla_disable_hlo_passes": "cse_barrier_expander"}


def network(stage_sizes=(1, 1), **options):
    return ResNet(stage_sizes, block=ResidualBlock, width=4, num_classes=3, stem="cifar", **options)


def loss(model, params, stats, x):
    logits, updates = model.apply(
        {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
    )
    return jnp.square(logits).sum(), (logits, updates)


def test_changes_no_name_and_no_number():
    plain, remat = network(), network(remat=True)
    variables = random_variables(plain, PIXELS)
    assert shapes(remat, PIXELS) == shapes(plain, PIXELS)

    @functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
    def run(model):
        step = jax.grad(functools.partial(loss, model), has_aux=True)
        gradients, training = step(variables["params"], variables["batch_stats"], IMAGES)
        return model.apply(variables, IMAGES, train=False), gradients, training

    (logits, gradients, training), (logits2, gradients2, training2) = run(plain), run(remat)
    # A compiler may fuse the two differently, and so round differently.
    for one, other in ((logits, logits2), (training, training2), (gradients, gradients2)):
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(one))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest)


def test_takes_less_memory():
    def temporary(model):
        variables = shapes(model, PIXELS)
        x = jax.ShapeDtypeStruct((16, PIXELS, PIXELS, 3), jnp.float32)
        step = jax.jit(jax.grad(functools.partial(loss, model), has_aux=True))
        compiled = step.lower(variables["params"], variables["batch_stats"], x).compile(
            AS_ON_ACCELERATORS  # pyrefly: ignore
        )
        analysis = compiled.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    deep = functools.partial(network, stage_sizes=(4,))
    assert temporary(deep(remat=True)) < 0.6 * temporary(deep())
