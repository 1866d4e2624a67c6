"""Residual networks of `keras.applications`, with random weights, on torch."""

import contextlib
import importlib
import os

import numpy as np
import pytest

from resnet_jax.interop.families import key_map
from tests.interop.references import library


def keras():
    """Returns Keras, or skips the test."""
    library("torch")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras runs on something else than torch")
    return keras


def make(depth, pixels, *, dtype="float32", classes=1000):
    """Returns a network with 50, 101 or 152 layers, or a small one of its layers for `depth` 1."""
    library_ = keras()
    with floatx(dtype):
        options = {"weights": None, "input_shape": (pixels, pixels, 3), "classes": classes}
        if depth > 1:
            network = getattr(library_.applications, f"ResNet{depth}")(**options)
        else:
            from keras.src.applications import resnet

            def stages(x):
                x = resnet.stack_residual_blocks_v1(x, 64, 1, stride1=1, name="conv2")
                return resnet.stack_residual_blocks_v1(x, 128, 2, name="conv3")

            network = resnet.ResNet(stages, preact=False, use_bias=True, **options)
        # The head returns logits, as ours does; its arrays are the same.
        network.layers[-1].activation = library_.activations.linear
        return network


@contextlib.contextmanager
def floatx(dtype):
    """Computes in this type of floating-point numbers; Keras takes float64 back to float32 else."""
    config = keras().config
    before, policy = config.floatx(), config.dtype_policy()
    config.set_floatx(dtype)
    config.set_dtype_policy(dtype)
    types = importlib.import_module("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(types, "float64", "float64")
            yield
    finally:
        config.set_floatx(before)
        config.set_dtype_policy(policy)


def randomize(network):
    """Draws every number of a network; returns it."""
    rng = np.random.default_rng(0)
    drawn = []
    for weight in network.weights:
        shape = tuple(weight.shape)
        if weight.name == "moving_variance":
            drawn.append(rng.uniform(0.5, 1.5, shape))
        elif weight.name == "gamma":
            drawn.append(rng.uniform(0.4, 0.8, shape))
        elif len(shape) > 1:
            drawn.append(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape))
        else:
            drawn.append(rng.normal(0, 0.1, shape))
    network.set_weights([array.astype(np.float32) for array in drawn])
    return network


def logits_of(network, images):
    """Returns the logits in evaluation for RGB images, which Keras' networks see as BGR."""
    torch = library("torch")
    with torch.no_grad():
        return network(torch.from_numpy(images[..., ::-1].copy()), training=False).cpu().numpy()


def train(network, pretrained, images, labels):
    """Returns a function of our names to loss, gradients and new statistics of a step.

    Args:
      network: Keras', in float64.
      pretrained: Ours.
      images: RGB.
      labels: Their classes.
    """
    torch = library("torch")
    inputs = torch.from_numpy(images[..., ::-1].astype(np.float64))
    with floatx("float64"):
        logits = network(inputs, training=True)
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
    loss.backward()
    assert {weight.dtype for weight in network.weights} == {"float64"}
    layers = {layer.name: {w.name: w for w in layer.weights} for layer in network.layers}
    key = key_map(type(pretrained.network), "keras").key

    def value_of(name):
        if name == "loss":
            return loss.detach().numpy()
        theirs = key(pretrained.network, name)
        layer, leaf = theirs.name.split("/")
        value = layers[layer][leaf].value
        if name.startswith("params/"):
            return theirs.to_ours(value.grad.numpy())
        new = value.detach().numpy()
        if leaf == "moving_mean":  # without the bias that its convolution adds
            new = new - layers[layer.replace("_bn", "_conv")]["bias"].value.detach().numpy()
        return new

    return value_of
