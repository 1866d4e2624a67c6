import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import InputError, create_model
from resnet_jax.models import VGG
from tests.models.shapes import (
    KEY,
    check_draws_in_training_only,
    check_types,
    count,
    shapes,
    sizes,
)
from tests.models.torch_reference import (
    QUICK,
    compare,
    needs_torch,
    run_module,
    torch,
    torch_names,
)

NARROW = {"width": 2, "hidden_units": 6, "num_classes": 5, "dropout_rate": 0.0}
# Table 1: "M" is a max-pool; the columns A, B, D and E.
TABLE = {
    11: [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    13: [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    16: [64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"],
    19: [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"],
}
COUNTS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}


def layers(depth, width):
    """Yields the columns of table 1 by our names: `("conv1_1", filters)`, ..., `("M", 0)`."""
    stage = layer = 1
    for entry in TABLE[depth]:
        if entry == "M":
            yield "M", 0
            stage, layer = stage + 1, 1
        else:
            yield f"{stage}_{layer}", entry * width // 64
            layer += 1


def torchvision(depth, batch_norm, width, units, classes):
    """Returns torchvision's module, by its layout, and the place of each convolution in it."""
    nn = torch.nn
    features, places, inputs = [], {}, 3
    for name, filters in layers(depth, width):
        if name == "M":
            features.append(nn.MaxPool2d(2, 2))
            continue
        places[f"conv{name}"] = f"features.{len(features)}"
        features.append(nn.Conv2d(inputs, filters, 3, padding=1))
        if batch_norm:
            places[f"bn{name}"] = f"features.{len(features)}"
            features.append(nn.BatchNorm2d(filters))
        features.append(nn.ReLU())
        inputs = filters
    module = nn.Module()
    module.features = nn.Sequential(*features)
    module.avgpool = nn.AdaptiveAvgPool2d((7, 7))
    module.classifier = nn.Sequential(
        *(nn.Linear(inputs * 49, units), nn.ReLU(), nn.Dropout(0.0)),
        *(nn.Linear(units, units), nn.ReLU(), nn.Dropout(0.0)),
        nn.Linear(units, classes),
    )
    module.forward = lambda x: module.classifier(module.avgpool(module.features(x)).flatten(1))
    return module, places


@needs_torch
@pytest.mark.parametrize(
    ("depth", "batch_norm", "pixels"),
    [
        (11, False, 224),
        (11, True, 64),
        pytest.param(13, True, 64, marks=pytest.mark.slow),
        pytest.param(16, False, 64, marks=pytest.mark.slow),
        pytest.param(19, False, 32, marks=pytest.mark.slow),
        pytest.param(16, True, 64, marks=pytest.mark.slow),
        pytest.param(19, True, 64, marks=pytest.mark.slow),
    ],
)
def test_equals_torchvisions(depth, batch_norm, pixels):
    _, places = torchvision(depth, batch_norm, 2, 6, 5)
    places |= {"hidden.fc1": "classifier.0", "hidden.fc2": "classifier.3", "head": "classifier.6"}
    compare(
        create_model(f"vgg{depth}{'_bn' if batch_norm else ''}", **NARROW),
        pixels,
        functools.partial(run_module, lambda: torchvision(depth, batch_norm, 2, 6, 5)[0]),
        batch=8 if batch_norm else 2,
        convert=functools.partial(
            torch_names, names=lambda path: (places[path], (7, 7, 16) if "fc1" in path else None)
        ),
        tolerance=1e-4 if batch_norm else 1e-5,
    )


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    variables = shapes(create_model(name), 224)
    assert count(variables["params"]) == COUNTS[name]
    assert set(variables) == ({"params", "batch_stats"} if "bn" in name else {"params"})


@pytest.mark.parametrize("depth", TABLE)
def test_sizes_of_the_layers(depth):
    found, side, convolutions = sizes(create_model(f"vgg{depth}"), 224), 224, 0
    for name, filters in layers(depth, 64):
        if name == "M":
            side //= 2
        else:
            assert found[f"conv{name}"] == (side, side, filters)
            convolutions += 1
    assert side == 7
    assert convolutions + 3 == depth
    assert sum(name.startswith("conv") for name in found) == convolutions


def test_vgg16_has_15237608_activations():
    found = sizes(create_model("vgg16"), 224)
    image, pooled = 224 * 224 * 3, sum(s * s * c for s, c in POOLS)
    outputs = [v for k, v in found.items() if k.startswith(("conv", "hidden.fc", "head"))]
    assert image + pooled + sum(int(np.prod(shape)) for shape in outputs) == 15_237_608


POOLS = [(112, 64), (56, 128), (28, 256), (14, 512), (7, 512)]


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_types_and_dropout(name):
    check_types(create_model(name, **NARROW), 32)
    check_draws_in_training_only(create_model(name, **{**NARROW, "dropout_rate": 0.5}), 32)


def test_the_start():
    module = VGG((1, 1), width=32, hidden_units=32, num_classes=200)
    init = jax.jit(functools.partial(module.init, train=False), compiler_options=QUICK)
    params = init(KEY, jnp.ones((1, 8, 8, 3)))["params"]
    for name, leaves in {**params.pop("hidden"), **params}.items():
        size = leaves["kernel"].size
        fan_in = size // leaves["kernel"].shape[-1]
        expected = np.sqrt(2 / fan_in) if name.startswith("conv") else 0.01
        assert float(leaves["kernel"].std()) == pytest.approx(expected, rel=5 / np.sqrt(2 * size))
        np.testing.assert_array_equal(leaves["bias"], 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: shapes(create_model("vgg16"), 31),
            "VGG needs images of at least 32x32 pixels; these are 31x31",
        ),
        (lambda: VGG(()), r"stage_sizes is \(\); it needs numbers, each of them at least 1"),
        (lambda: create_model("vgg16", dropout_rate=2), r"dropout_rate is 2; it must be in \[0, 1"),
        (lambda: create_model("vgg16", hidden_units=0), "hidden_units is 0; it must be at least 1"),
        (lambda: create_model("vgg16", bn_momentum=0.5), "vgg16 has no option 'bn_momentum'"),
        (lambda: create_model("vgg16", batch_norm=True), "vgg16 has no option 'batch_norm'"),
        (lambda: create_model("vgg16_bn", batch_norm=False), "vgg16_bn has no option 'batch_norm'"),
        (lambda: create_model("vgg16_bn", bn_group_size=-1), "bn_group_size is -1; it must be a p"),
        (lambda: create_model("vgg17"), "there is no model 'vgg17'; did you mean vgg1"),
    ],
)
def test_wrong_input_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
