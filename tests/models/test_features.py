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


def submodules(*names):
    return jax.jit(features, static_argnums=(0, 3), compiler_options=QUICK)(
        MODEL, random_variables(MODEL, 32), IMAGES, names
    )


def test_are_those_that_the_network_itself_uses():
    found = submodules("stage3", "stem", "stage2/block2/conv3")
    assert {name: a.shape for name, a in found.items()} == {
        "stem": (2, 8, 8, 4),
        "stage2/block2/conv3": (2, 4, 4, 32),
        "stage3": (2, 2, 2, 64),
    }
    variables = random_variables(MODEL, 32)
    logits = jax.jit(functools.partial(MODEL.apply, train=False), compiler_options=QUICK)(
        variables, IMAGES
    )
    head = variables["params"]["head"]
    expected = found["stage3"].mean((1, 2)) @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


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


def test_sown_and_captured_are_the_same():
    variables = random_variables(MODEL, 32)
    apply = functools.partial(MODEL.apply, train=False, mutable=["intermediates"])
    _, sown = jax.jit(apply, compiler_options=QUICK)(variables, IMAGES)
    for name, value in submodules(*NAMES).items():
        np.testing.assert_array_equal(sown["intermediates"][name]["output"][0], value)


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
        submodules("stage4")
