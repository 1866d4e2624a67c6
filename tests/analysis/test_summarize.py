"""What networks consist of, against the published numbers."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from resnet_jax import InputError, ResNet, create_model, list_models, summarize
from resnet_jax.analysis import Layer
from resnet_jax.models import image_shape
from tests.models.shapes import count, shapes


@functools.cache
def summary(name, **options):
    return summarize(create_model(name, **options), image_shape(name))


def by_name(found):
    return {layer.name: layer for layer in found.layers}


@pytest.mark.parametrize(
    ("name", "multiply_adds", "parameters"),
    [
        ("resnet18", 1.814e9, 11_689_512),
        pytest.param("resnet34", 3.664e9, 21_797_672, marks=pytest.mark.slow),
        ("resnet50", 3.858e9, 25_557_032),
        pytest.param("resnet101", 7.570e9, 44_549_160, marks=pytest.mark.slow),
        pytest.param("resnet152", 11.282e9, 60_192_808, marks=pytest.mark.slow),
        pytest.param("resnet50_v1_5", 4.089e9, 25_557_032, marks=pytest.mark.slow),
    ],
)
def test_table_1(name, multiply_adds, parameters):
    found = summary(name)
    assert found.multiply_adds == pytest.approx(multiply_adds, abs=5e5)
    assert found.parameters == parameters
    assert found.training_parameters == 0


DEEP = re.compile(
    r".*(34|44|56|101|110|152|1202)(_v1_5)?|vgg1[369].*|prelu_net_[bc]|cifar_p.*|.*ception"
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (DEEP.fullmatch(name) is not None))
        for name in list_models()
    ],
)
def test_every_parameter_is_counted_once(name):
    found = summary(name)
    height, _, channels = found.image_shape
    variables = shapes(create_model(name), height, channels)
    assert found.parameters + found.training_parameters == count(variables["params"])
    assert len(by_name(found)) == len(found.layers)
    assert all(layer.parameters for layer in found.layers if layer.kind == "scale")


def test_vgg16_has_the_lectures_activations():
    found = summary("vgg16")
    assert found.activations == 15_237_608
    assert found.activations * 4 / 1e6 == pytest.approx(61, abs=0.05)
    assert found.parameters == 138_357_544


@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [
        ("alexnet", "max_pool_3", 195),
        ("vgg16", "max_pool_5", 212),
        ("resnet50", "stage4/block3/conv3", 483),
        pytest.param("resnet101", "stage4/block3/conv3", 1027, marks=pytest.mark.slow),
        pytest.param("resnet152", "stage4/block3/conv3", 1507, marks=pytest.mark.slow),
    ],
)
def test_receptive_fields_are_the_published_ones(name, layer, side):
    # Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", 2019.
    assert by_name(summary(name))[layer].receptive_field == (side, side)


def test_the_first_layers_of_alexnet():
    conv, pool = summary("alexnet").layers[:2]
    assert conv == Layer(
        name="conv1",
        kind="conv",
        output=(55, 55, 96),
        parameters=34_944,
        multiply_adds=55 * 55 * 96 * 11 * 11 * 3,
        receptive_field=(11, 11),
        jump=(4, 4),
        filter=(11, 11, 3),
        stride=(4, 4),
        input=(227, 227, 3),
        sources=("image",),
    )
    assert (pool.kind, pool.output, pool.filter) == ("max_pool", (27, 27, 96), (3, 3))
    assert (pool.stride, pool.parameters, pool.activations) == ((2, 2), 0, 27 * 27 * 96)


class Example(nn.Module):
    """The lecture's ten 5x5 filters on an image of 32x32x3."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Conv(10, (5, 5), padding=2, name="conv")(x)


def test_ten_filters():
    (layer,) = summarize(Example(), (32, 32, 3)).layers
    assert (layer.output, layer.parameters) == ((32, 32, 10), 760)
    assert (layer.filter, layer.padding) == ((5, 5, 3), ((2, 2), (2, 2)))
    assert layer.multiply_adds == 32 * 32 * 10 * 75


def test_auxiliary_classifiers_are_for_training():
    found = summary("googlenet")
    assert (found.parameters, found.training_parameters) == (6_998_552, 6_379_728)


def test_lenet5():
    found = by_name(summary("lenet5_1998"))
    assert found["c3"].parameters == 1_516
    assert found["s2"] == Layer(
        "s2",
        "scale",
        (14, 14, 6),
        12,
        0,
        (6, 6),
        jump=(2, 2),
        input=(14, 14, 6),
        sources=("s2/avg_pool",),
    )
    assert found["s2/avg_pool"].output == (14, 14, 6)
    assert found["c5"].receptive_field == (32, 32)
    assert found["f6"].kind == "dense"


def test_inputs_and_their_sources():
    found = by_name(summary("resnet18"))
    assert found["stage1/block2/conv1"].sources == ("stage1/block1/conv2", "stem/max_pool")
    assert found["stage3/block1/conv1"].input == (28, 28, 128)
    assert set(found["stage3/block1/conv1"].sources) >= {
        "stage2/block2/conv2",
        "stage2/block1/conv2",
        "stage2/block1/shortcut/conv",
    }
    assert found["head"].sources == ("avg_pool",)
    norm = found["stage1/block1/bn2"]
    assert norm.statistics
    assert norm.sources == ("stage1/block1/conv2",)
    assert not found["stage1/block1/conv2"].statistics
    assert not any(layer.statistics for layer in summary("lenet5").layers)


@pytest.mark.parametrize("options", [{"remat": True}, {"dtype": jnp.bfloat16}])
def test_neither_remat_nor_the_type_changes_anything(options):
    assert summary("resnet18", **options) == summary("resnet18")


def test_multiply_adds_are_half_of_what_xla_counts():
    model = ResNet((1, 1), width=8, num_classes=5)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    apply = jax.jit(functools.partial(model.apply, train=False))
    analysis = apply.lower(shapes(model, 64), images).cost_analysis()
    assert analysis is not None
    # XLA does not count where a filter meets padding, but counts what is done in place.
    assert 2 * summarize(model, (64, 64, 3)).multiply_adds == pytest.approx(
        analysis["flops"], rel=0.1
    )


class Shared(nn.Module):
    """One layer that runs twice, and a product of activations."""

    @nn.compact
    def __call__(self, x, *, train):
        conv = nn.Conv(3, (3, 3), name="conv")
        x = nn.LayerNorm(name="norm")(conv(conv(x))).reshape(len(x), -1, 3)
        return jnp.einsum("nic,njc->nij", x, x)


def test_shared_parameters_count_once_and_products_of_activations_count():
    found = by_name(summarize(Shared(), (4, 4, 3)))
    assert {name: layer.parameters for name, layer in found.items()} == {
        "conv": 84,
        "conv_2": 0,
        "norm": 6,
        "matmul": 0,
    }
    assert found["matmul"].multiply_adds == 16 * 16 * 3
    assert found["conv_2"].receptive_field == (5, 5)


class Loop(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return jax.lax.scan(lambda x, _: (x * 2, None), x, None, length=3)[0]


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (Example(), (0, 32, 3), r"the image's shape is \(0, 32, 3\); it must be a height"),
        (Example(), (32, 3), "it must be a height, a width and channels"),
        (create_model("lenet5"), (28, 28, 1), "LeNet-5 needs images of 32x32 pixels"),
        (Loop(), (8, 8, 3), r"a network with a loop or branch \(scan\) has no"),
    ],
)
def test_wrong_input_is_refused(model, shape, message):
    with pytest.raises(InputError, match=message):
        summarize(model, shape)
