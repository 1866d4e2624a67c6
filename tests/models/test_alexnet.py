import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resnet_jax import InputError, create_model
from resnet_jax.models import AlexNet
from resnet_jax.models.layers import HiddenLayers
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
    F,
    compare,
    convolve,
    flatten,
    linear,
    needs_torch,
    run_module,
    torch,
    torch_names,
)

NARROW = {"filters": (4, 6, 8, 8, 6), "hidden_units": 10, "num_classes": 5, "dropout_rate": 0.0}


def response_norm(x, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Returns the formula of section 3.3, channel by channel."""
    channels = []
    for i in range(x.shape[1]):
        near = x[:, max(0, i - n // 2) : min(x.shape[1] - 1, i + n // 2) + 1]
        channels.append(x[:, i] / (k + alpha * (near**2).sum(1)) ** beta)
    return torch.stack(channels, 1)


def paper(x, p, s, train, groups):
    """Returns the network of section 3.5."""
    pool = functools.partial(F.max_pool2d, kernel_size=3, stride=2)
    x = pool(response_norm(F.relu(convolve(x, p["conv1"], 4, 0))))
    x = pool(response_norm(F.relu(convolve(x, p["conv2"], groups=groups))))
    x = F.relu(convolve(x, p["conv3"]))
    x = F.relu(convolve(x, p["conv4"], groups=groups))
    x = pool(F.relu(convolve(x, p["conv5"], groups=groups)))
    x = flatten(F.adaptive_avg_pool2d(x, 6))
    x = F.relu(linear(x, p["hidden"]["fc1"]))
    x = F.relu(linear(x, p["hidden"]["fc2"]))
    return [linear(x, p["head"])], s


def torchvision(filters, units, classes):
    """Returns torchvision's module, by its layout."""
    nn = torch.nn
    a, b, c, d, e = filters
    module = nn.Module()
    module.features = nn.Sequential(
        *(nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(c, d, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )
    module.avgpool = nn.AdaptiveAvgPool2d((6, 6))
    module.classifier = nn.Sequential(
        *(nn.Dropout(0.0), nn.Linear(e * 36, units), nn.ReLU()),
        *(nn.Dropout(0.0), nn.Linear(units, units), nn.ReLU()),
        nn.Linear(units, classes),
    )
    module.forward = lambda x: module.classifier(module.avgpool(module.features(x)).flatten(1))
    return module


def torchvision_name(path):
    convolutions = {f"conv{i}": f"features.{j}" for i, j in enumerate((0, 3, 6, 8, 10), 1)}
    others = {"hidden.fc1": "classifier.1", "hidden.fc2": "classifier.4", "head": "classifier.6"}
    return (convolutions | others)[path], (6, 6, 6) if path == "hidden.fc1" else None


@needs_torch
@pytest.mark.parametrize(("pixels", "groups"), [(227, 2), (67, 1)])
def test_the_papers_form_equals_torch(pixels, groups):
    module = create_model("alexnet", groups=groups, **NARROW)
    compare(module, pixels, functools.partial(paper, groups=groups))


@needs_torch
def test_torchvisions_form_equals_torch():
    module = create_model("alexnet_torchvision", **NARROW)
    make = functools.partial(torchvision, NARROW["filters"], 10, 5)
    compare(
        module,
        224,
        functools.partial(run_module, make),
        convert=functools.partial(torch_names, names=torchvision_name),
    )


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("alexnet", {}, 60_965_224),
        ("alexnet", {"groups": 1}, 62_378_344),
        ("alexnet_torchvision", {}, 61_100_840),
    ],
)
def test_counts(name, options, expected):
    variables = shapes(create_model(name, **options), 227)
    assert set(variables) == {"params"}
    assert count(variables) == expected


def test_the_first_convolution_has_34944_parameters():
    params = shapes(create_model("alexnet"), 227)["params"]
    assert count(params["conv1"]) == 34_944
    assert params["conv1"]["kernel"].size == 34_848


@pytest.mark.parametrize(("name", "pixels"), [("alexnet", 227), ("alexnet_torchvision", 224)])
def test_sizes_of_the_layers(name, pixels):
    module = create_model(name)
    found = sizes(module, pixels)
    sides = {"conv1": 55, "conv2": 27, "conv3": 13, "conv4": 13, "conv5": 13}
    for filters, (layer, side) in zip(module.filters, sides.items(), strict=True):
        assert found[layer] == (side, side, filters)
    assert found["hidden.fc1"] == found["hidden.fc2"] == (4096,)
    assert shapes(module, pixels)["params"]["hidden"]["fc1"]["kernel"].shape == (9216, 4096)


def test_the_224_pixels_of_the_paper_do_not_give_its_55():
    assert sizes(create_model("alexnet", **NARROW), 224)["conv1"] == (54, 54, 4)


def test_the_start_is_the_papers():
    module = create_model("alexnet", **{**NARROW, "filters": (30,) * 5, "hidden_units": 30})
    init = jax.jit(functools.partial(module.init, train=False), compiler_options=QUICK)
    params = init(KEY, jnp.ones((1, 70, 70, 3)))["params"]
    ones = {"conv2", "conv4", "conv5", "fc1", "fc2"}
    for layer, leaves in {**params, **params["hidden"]}.items():
        if "kernel" in leaves:
            assert float(leaves["kernel"].std()) == pytest.approx(0.01, rel=0.2)
            np.testing.assert_array_equal(leaves["bias"], float(layer in ones))


@pytest.mark.parametrize("name", ["alexnet", "alexnet_torchvision"])
def test_types_and_dropout(name):
    check_types(create_model(name, **NARROW), 70)
    check_draws_in_training_only(create_model(name, **{**NARROW, "dropout_rate": 0.5}), 70)


@pytest.mark.parametrize(("form", "on"), [("paper", "outputs"), ("torchvision", "inputs")])
def test_what_dropout_is_on(form, on):
    found = []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, HiddenLayers) and context.method_name == "__call__":
            found.append(context.module.dropout_on)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        shapes(AlexNet(form=form), 70)
    assert found == [on]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: shapes(create_model("alexnet"), 66),
            "AlexNet needs images of at least 67x67 pixels; these are 66x66",
        ),
        (
            lambda: shapes(create_model("alexnet_torchvision"), 62),
            "AlexNet needs images of at least 63x63 pixels; these are 62x62",
        ),
        (lambda: create_model("alexnet", groups=5), r"groups is 5; it must divide each of \(96, "),
        (lambda: create_model("alexnet", filters=(4, 4)), r"filters is \(4, 4\); it must have 5"),
        (lambda: create_model("alexnet", filters=[4, 4, 4, 4, 0]), "numbers, each of them at leas"),
        (lambda: create_model("alexnet", dropout_rate=1.0), r"dropout_rate is 1.0; it must be in "),
        (lambda: create_model("alexnet", num_classes=0), "num_classes is 0; it must be at least 1"),
        (
            lambda: AlexNet(form="keras"),  # pyrefly: ignore
            "form is 'keras'; it must be one of 'paper', 'torchvision'",
        ),
        (
            lambda: create_model("alexnet", form="torchvision"),
            "alexnet has no option 'form'; a network of another name has",
        ),
    ],
)
def test_wrong_input_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_network_made_from_lists_can_be_static_in_jit():
    assert hash(AlexNet(filters=[4, 6, 8, 8, 6])) == hash(AlexNet(filters=(4, 6, 8, 8, 6)))
