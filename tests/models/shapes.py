"""Shapes of networks' variables and outputs, without computing anything."""

import functools

import flax.errors
import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util

KEY = jax.random.key(0, impl="rbg")  # compiles several times faster than the default


def shapes(module, pixels, channels=3):
    """Returns the shapes of the variables."""
    return _traced(module, pixels, channels)[0]


def sizes(module, pixels, channels=3):
    """Returns the shape of each submodule's output, without the batch, by the submodule's name."""
    return _traced(module, pixels, channels)[1]


@functools.cache  # tracing a large network takes a second
def _traced(module, pixels, channels):
    init = functools.partial(
        module.init_with_output, train=False, mutable=True, capture_intermediates=True
    )
    images = jax.ShapeDtypeStruct((1, pixels, pixels, channels), jnp.float32)
    _, variables = jax.eval_shape(init, KEY, images)
    flat = traverse_util.flatten_dict(variables.pop("intermediates"), sep=".")
    outputs = {
        path.removesuffix(".__call__"): value[0].shape[1:]
        for path, value in flat.items()
        if path.endswith("__call__") and value[0] is not None
    }
    return variables, outputs


def count(tree):
    """Returns the number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def check_types(module, pixels, channels=3):
    """Checks that `init` returns the same whatever `train` is, and that bfloat16 stays inside."""
    module = module.clone(dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((2, pixels, pixels, channels), jnp.float32)
    variables = shapes(module, pixels, channels)
    training = jax.eval_shape(functools.partial(module.init, train=True), KEY, images)
    assert training == variables
    assert set(variables) <= {"params", "batch_stats"}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    apply = functools.partial(module.apply, train=True, mutable=True, rngs={"dropout": KEY})
    logits, updates = jax.eval_shape(apply, variables, images)
    every = [logits, *jax.tree.leaves(updates.get("auxiliary_logits", {}))]
    assert {y.shape for y in every} == {(2, module.num_classes)}
    assert {leaf.dtype for leaf in jax.tree.leaves((every, updates))} == {jnp.dtype("float32")}


def check_draws_in_training_only(module, pixels):
    """Checks that training needs a key for dropout.

    That evaluation needs none is seen where networks are summarised without any key.
    """
    images = jax.ShapeDtypeStruct((2, pixels, pixels, 3), jnp.float32)
    training = functools.partial(module.apply, train=True, mutable=["batch_stats"])
    with pytest.raises(flax.errors.InvalidRngError):
        jax.eval_shape(training, shapes(module, pixels), images)
