"""The outputs of submodules, by name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resnet_jax import BottleneckBlock, InputError, ResNet, create_model, features
from tests.models.shapes import shapes
from tests.models.torch_reference import QUICK, random_variables

NAMES = ("stem", "stage1", "stage2", "stage3")
MODEL = ResNet((1, 2, 1), block=BottleneckBlock, width=4, num_classes=5)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)


DEEP = "stage2/block2/conv3"


@functools.cache
def outputs():
    """Returns features, logits and sown outputs in evaluation."""

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(variables):
        logits, sown = MODEL.apply(variables, IMAGES, train=False, mutable=["intermediates"])
        return features(MODEL, variables, IMAGES, (DEEP, *NAMES)), logits, sown

    return run(random_variables(MODEL, 32))


def test_are_those_that_the_network_itself_uses():
    found, logits, sown = outputs()
    assert {name: a.shape for name, a in found.items()} == {
        DEEP: (2, 4, 4, 32),
        "stem": (2, 8, 8, 4),
        "stage1": (2, 8, 8, 16),
        "stage2": (2, 4, 4, 32),
        "stage3": (2, 2, 2, 64),
    }
    head = random_variables(MODEL, 32)["params"]["head"]
    expected = found["stage3"].mean((1, 2)) @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    for name in NAMES:
        output = sown["intermediates"][name]["output"][0]
        np.testing.assert_allclose(output, found[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("remat", [False, True])
def test_are_sown_only_when_they_are_asked_for(train, remat):
    model = MODEL.copy(remat=remat)
    variables = shapes(model, 32)
    assert set(variables) == {"params", "batch_stats"}
    apply = functools.partial(model.apply, train=train)
    logits, updates = jax.eval_shape(
        functools.partial(apply, mutable=["batch_stats", "intermediates"]), variables, IMAGES
    )
    assert updates["batch_stats"] == variables["batch_stats"]
    sides = {"stem": (8, 4), "stage1": (8, 16), "stage2": (4, 32), "stage3": (2, 64)}
    assert {name: sown["output"][0].shape for name, sown in updates["intermediates"].items()} == {
        name: (2, side, side, channels) for name, (side, channels) in sides.items()
    }
    only, updates = jax.eval_shape(
        functools.partial(apply, mutable=["batch_stats"]), variables, IMAGES
    )
    assert (only, set(updates)) == (logits, {"batch_stats"})


def test_gradients_go_through_them():
    variables = random_variables(MODEL, 32)

    @functools.partial(jax.jit, compiler_options=QUICK)
    @jax.grad
    def gradients(params):
        outputs = features(MODEL, {**variables, "params": params}, IMAGES, ["stage2"])
        return outputs["stage2"].sum()

    found = gradients(variables["params"])
    for name in (*NAMES, "head"):
        moves = any(np.any(leaf) for leaf in jax.tree.leaves(found[name]))
        assert moves == (name in ("stem", "stage1", "stage2"))


def test_of_another_family():
    model = create_model("alexnet")
    images = jax.ShapeDtypeStruct((3, 227, 227, 3), np.float32)
    found = jax.eval_shape(
        lambda variables, images: features(model, variables, images, ("conv1", "conv5")),
        shapes(model, 227),
        images,
    )
    sides = {name: a.shape[1:3] for name, a in found.items()}
    assert sides == {"conv1": (55, 55), "conv5": (13, 13)}


def test_of_a_submodule_that_runs_twice_are_of_its_last_run():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            layer = nn.Dense(2, name="layer")
            return layer(layer(x))

    x = jnp.ones((1, 2))
    y, variables = Twice().init_with_output(jax.random.key(0), x, train=False)
    np.testing.assert_array_equal(features(Twice(), variables, x, ["layer"])["layer"], y)


def test_a_wrong_name_is_refused():
    with pytest.raises(InputError, match="there is no submodule 'stage4'; did you mean stage"):
        jax.eval_shape(lambda v: features(MODEL, v, IMAGES, ["stage4"]), shapes(MODEL, 32))
