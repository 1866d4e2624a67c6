"""Keras' residual networks, imported from the files that it writes, and exported to it.

The largest differences are printed: `pytest -m slow -s tests/interop/test_keras.py` makes the table
of all of them.
"""

import functools

import numpy as np
import pytest

from resnet_jax import InputError, ResidualBlock, create_model
from resnet_jax.interop import load_pretrained, read_weights, save_pretrained, write_weights
from resnet_jax.interop.families.resnet import keras_layers
from resnet_jax.interop.formats.keras import read_keras
from tests.interop import keras_reference
from tests.interop.comparison import difference, differences_of, evaluate, train_ours
from tests.interop.small import check_same, random_variables, small_network

DEPTHS = (50, 101, 152)
FORM = {"stride_on": "1x1", "pool_padding": (1, 1), "bn_epsilon": 1.001e-5, "bn_momentum": 0.99}

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # Keras', of numpy
]


@functools.cache
def small():
    return keras_reference.randomize(keras_reference.make(1, 40, classes=10))


@pytest.mark.parametrize("depth", [1, *(pytest.param(d, marks=pytest.mark.slow) for d in DEPTHS)])
def test_a_network_equals_keras_in_both_modes(depth, tmp_path):
    pixels, classes = (40, 10) if depth == 1 else (64, 1000)
    if depth == 1:
        network = small()
    else:
        network = keras_reference.randomize(keras_reference.make(depth, pixels))
    network.save(tmp_path / "a.keras")
    pretrained = load_pretrained(tmp_path / "a.keras")
    if depth > 1:
        assert pretrained.network == create_model(f"resnet{depth}", **FORM)

    rng = np.random.default_rng(1)
    images = rng.normal(size=(4, pixels, pixels, 3)).astype(np.float32)
    labels = rng.integers(0, classes, 4)
    double = keras_reference.make(depth, pixels, dtype="float64", classes=classes)
    double.set_weights(network.get_weights())
    found = differences_of(
        pretrained.network,
        evaluate(pretrained, images),
        keras_reference.logits_of(network, images),
        train_ours(pretrained, images, labels),
        keras_reference.train(double, pretrained, images, labels),
    )
    numbers = "  ".join(f"{field} {value:.1e}" for field, value in found._asdict().items())
    print(f"\nresnet{depth:3}  keras  {numbers}")
    assert found.logits < 1e-5
    assert max(found.loss, found.gradients) < 1e-8
    assert found.statistics < 1e-6  # a mean from which a bias was taken was rounded to float32


@pytest.mark.parametrize("name", ["a.h5", "a.keras", "a.weights.h5"])
def test_files_of_keras_come_back(tmp_path, name):
    """Bit for bit, the biases too, and Keras takes what is written here."""
    network = small()
    save = network.save_weights if name.endswith(".weights.h5") else network.save
    save(tmp_path / name)
    weights = read_weights(tmp_path / name)
    assert (weights.network.stage_sizes, weights.network.width) == ((1, 2), 64)
    assert {field: getattr(weights.network, field) for field in FORM} == FORM
    assert weights.preprocessing.statistics().mean == pytest.approx([123.68, 116.779, 103.939])
    assert weights.preprocessing.statistics().std.tolist() == [1, 1, 1]
    assert sum(n.startswith("conv_biases/") for n in weights.arrays) == 12
    back = tmp_path / "back.h5"
    write_weights(weights, tmp_path / "ours.safetensors", "resnet_jax")
    write_weights(read_weights(tmp_path / "ours.safetensors"), back, "keras")
    check_same(read_keras(tmp_path / name).arrays, read_keras(back).arrays)

    other = keras_reference.make(1, 40, classes=10)
    other.load_weights(back)
    for one, two in zip(network.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_ours_comes_back_and_keras_computes_the_same(tmp_path):
    pytest.importorskip("h5py")
    network = small_network(width=64, num_classes=10, **FORM)
    variables, path = random_variables(network), tmp_path / "a.h5"
    save_pretrained(network, variables, path, to="keras")
    found = load_pretrained(path)
    assert found.network == network
    np.testing.assert_equal(found.variables, variables)
    theirs = keras_reference.make(1, 40, classes=10)
    theirs.load_weights(path)
    images = np.random.default_rng(0).normal(size=(2, 40, 40, 3)).astype(np.float32)
    logits = keras_reference.logits_of(theirs, images)
    assert difference(evaluate(found, images), logits) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
def test_layers_are_in_the_order_of_keras(depth):
    network = keras_reference.make(depth, 32)
    theirs = [layer.name for layer in network.layers if layer.weights]
    assert list(keras_layers(create_model(f"resnet{depth}"))) == theirs


def test_biases_are_folded_for_libraries_that_have_none(tmp_path):
    small().save(tmp_path / "a.h5")
    weights, found = read_weights(tmp_path / "a.h5"), load_pretrained(tmp_path / "a.h5")
    write_weights(weights, tmp_path / "a.safetensors", "huggingface", force=True)
    folded = read_weights(tmp_path / "a.safetensors").arrays
    mean = "batch_stats/stage1/block1/shortcut/bn/mean"
    bias = weights.arrays["conv_biases/stage1/block1/shortcut/conv/bias"]
    expected = (weights.arrays[mean].astype(np.float64) - bias).astype(np.float32)
    np.testing.assert_array_equal(folded[mean], expected)
    ours = found.variables["batch_stats"]["stage1"]["block1"]["shortcut"]["bn"]["mean"]
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        (small_network(), "a.h5", r"it has stride_on '1x1' for '3x3', bn_epsilon 1.001e-05 for"),
        (small_network(ResidualBlock), "a.h5", "keras has residual networks of bottleneck blocks"),
        (small_network(**FORM), "a.weights.h5", "give NAME.h5, which Keras reads with load_weig"),
        (small_network(**FORM), "a.keras", "give NAME.h5"),
        (small_network(**FORM), "a", "give NAME.h5"),
        (create_model("vgg11", width=2, hidden_units=3), "a.h5", "keras has no network of the kin"),
    ],
)
def test_networks_that_keras_does_not_have_are_not_written(tmp_path, network, name, message):
    with pytest.raises(InputError, match=message):
        save_pretrained(network, random_variables(network), tmp_path / name, to="keras")
    assert not list(tmp_path.iterdir())


def test_missing_arrays_are_named_as_in_keras(tmp_path):
    h5py, path = pytest.importorskip("h5py"), tmp_path / "a.h5"
    network = small_network(**FORM)
    save_pretrained(network, random_variables(network), path, to="keras")
    with h5py.File(path, "a") as file:
        del file["conv1_bn/conv1_bn/gamma"]
        file["more/kernel"] = np.ones(3, np.float32)
    with pytest.raises(InputError, match=r"missing: conv1_bn/gamma \(4,\); unexpected: more/kerne"):
        load_pretrained(path)
