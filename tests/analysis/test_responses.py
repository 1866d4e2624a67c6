"""Responses, and gradients layer by layer, against explicit computations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from resnet_jax import BottleneckBlock, InputError, ResidualBlock, ResNet, create_model, features
from resnet_jax.analysis import gradient_norms, layer_responses
from resnet_jax.analysis.responses import cross_entropy
from tests.models.torch_reference import random_variables
from tests.quick import few_optimizations

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(0.3, 1, (5, 8, 8, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1, 1, 2])


@pytest.fixture(autouse=True)
def quick():
    with few_optimizations():
        yield


def small(**fields):
    fields = {"stage_sizes": (1, 1), "block": ResidualBlock, "width": 2, "num_classes": 3, **fields}
    return ResNet(**{"stem": "cifar", "shortcut": "A", **fields})


def convolve(x, kernel, stride=1):
    """Returns a 3x3 convolution with padding, in float64."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return np.einsum("nhwckl,klcd->nhwd", windows[:, ::stride, ::stride], kernel)


def responses_of(variables, x, *, residual):
    """Returns the deviations for `small()`, the network written out in numpy."""
    params, stats = variables["params"], variables["batch_stats"]
    found = {}

    def layer(x, module, number="", stride=1):
        p, s = params, stats
        for name in module.split("/"):
            p, s = p[name], s[name]
        norm, running = p[f"bn{number}"], s[f"bn{number}"]
        y = convolve(x, p[f"conv{number}"]["kernel"], stride) - running["mean"]
        y = y / np.sqrt(running["var"] + 1e-5) * norm["scale"] + norm["bias"]
        found[f"{module}/conv{number}"] = y.std()
        return y

    x = np.maximum(layer(x, "stem"), 0)
    for stage, stride in ((1, 1), (2, 2)):
        block = f"stage{stage}/block1"
        y = layer(np.maximum(layer(x, block, 1, stride), 0), block, 2)
        if residual:
            short = x[:, ::stride, ::stride]
            y = y + np.pad(short, ((0, 0), (0, 0), (0, 0), (0, y.shape[-1] - short.shape[-1])))
        x = np.maximum(y, 0)
    return found


@pytest.mark.parametrize("residual", [True, False])
def test_responses_are_those_of_the_network_written_out(residual):
    model = small(shortcut="A" if residual else None)
    variables = random_variables(model, 8)
    found = layer_responses(model, variables, [IMAGES[:2], IMAGES[2:4], IMAGES[4:]])
    expected = responses_of(variables, IMAGES, residual=residual)
    assert list(found) == list(expected)
    np.testing.assert_allclose([*found.values()], [*expected.values()], rtol=1e-5)


def test_responses_are_of_3x3_layers_alone():
    model = ResNet((1, 2), block=BottleneckBlock, width=2, num_classes=3, remat=True)
    variables = random_variables(model, 16)
    images = RNG.normal(size=(2, 16, 16, 3)).astype(np.float32)
    found = layer_responses(model, variables, iter([images]))
    assert list(found) == ["stage1/block1/conv2", "stage2/block1/conv2", "stage2/block2/conv2"]
    outputs = jax.jit(features, static_argnums=(0, 3))(
        model, variables, images, ("stage2/block2/bn2",)
    )
    expected = np.std(np.asarray(outputs["stage2/block2/bn2"], np.float64))
    assert found["stage2/block2/conv2"] == pytest.approx(expected, rel=1e-5)


def test_without_normalisation_the_response_is_the_convolution():
    model = create_model("vgg11", width=8, hidden_units=8, num_classes=3)
    variables = random_variables(model, 32)
    images = RNG.normal(size=(2, 32, 32, 3)).astype(np.float32)
    found = layer_responses(model, variables, [images])
    outputs = jax.jit(features, static_argnums=(0, 3))(model, variables, images, tuple(found))
    assert len(found) == 8
    for name, response in found.items():
        assert response == pytest.approx(np.std(np.asarray(outputs[name])), rel=1e-5)


@functools.cache
def of_a_plain_network():
    """Returns a network, its variables and its gradients."""
    model = small(stage_sizes=(1,), shortcut=None)
    variables = random_variables(model, 8)
    return model, variables, gradient_norms(model, variables, IMAGES, LABELS)


def test_gradients_are_those_of_the_loss():
    model, variables, found = of_a_plain_network()

    @jax.jit
    def loss_and_logits(params):
        logits, _ = model.apply(
            {**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"]
        )
        chosen = jnp.take_along_axis(logits, LABELS[:, None], 1)
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - chosen[:, 0]), logits

    of, logits = jax.grad(loss_and_logits, has_aux=True)(variables["params"])
    gradients, params = (
        traverse_util.flatten_dict(tree, sep="/") for tree in (of, variables["params"])
    )
    layers = ("stem/conv", "stage1/block1/conv1", "stage1/block1/conv2", "head")
    assert found.layers == layers
    norms = np.array([np.linalg.norm(gradients[f"{layer}/kernel"]) for layer in layers])
    sizes = np.array([np.linalg.norm(params[f"{layer}/kernel"]) for layer in layers])
    np.testing.assert_allclose(found.kernel, norms, rtol=1e-4)
    np.testing.assert_allclose(found.relative, norms / sizes, rtol=1e-4)
    # Of the logits z, the gradient of the mean loss is (softmax(z) - target) / n.
    expected = np.linalg.norm(jax.nn.softmax(logits) - np.eye(3)[LABELS]) / len(LABELS)
    assert found.response[-1] == pytest.approx(expected, rel=1e-4)
    assert found.signal[-1] == pytest.approx(np.std(np.asarray(logits)), rel=1e-5)


def test_signals_are_normalised_by_the_batch():
    _, variables, found = of_a_plain_network()
    for name, signal in zip(("bn1", "bn2"), found.signal[1:3], strict=True):
        norm = variables["params"]["stage1"]["block1"][name]
        # Each channel has the mean `bias` and the deviation `scale`.
        expected = np.sqrt(np.mean(np.square(norm["scale"])) + np.var(norm["bias"]))
        assert signal == pytest.approx(expected, rel=1e-3)


def test_gradients_scale_with_the_loss_and_signals_do_not():
    model, variables, found = of_a_plain_network()
    scaled = gradient_norms(
        model.copy(remat=True),
        variables,
        IMAGES,
        LABELS,
        loss=lambda logits, labels: 3 * cross_entropy(logits, labels),
    )
    for field in ("kernel", "relative", "response"):
        np.testing.assert_allclose(getattr(scaled, field), 3 * getattr(found, field), rtol=1e-4)
    np.testing.assert_allclose(scaled.signal, found.signal, rtol=1e-5)


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match="at least one batch"):
        layer_responses(small(), {}, [])
    lenet = create_model("lenet5")
    with pytest.raises(InputError, match="LeNet5 has no 3x3 convolutions"):
        layer_responses(lenet, {}, [jnp.zeros((1, 32, 32, 1))])
