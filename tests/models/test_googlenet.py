import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import InputError, create_model
from resnet_jax.models import GoogLeNet, googlenet
from tests.models.shapes import (
    KEY,
    check_draws_in_training_only,
    check_types,
    count,
    shapes,
    sizes,
)
from tests.models.torch_reference import (
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

NAME = "auxiliary_logits"
NARROW = {
    "width": 8,
    "auxiliary_units": 6,
    "num_classes": 5,
    "dropout_rate": 0.0,
    "auxiliary_dropout_rate": 0.0,
}
# Table 1: the module's output at 224 pixels, and its #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5 and
# pool proj.
MODULES = {
    "3a": (28, 256, (64, 96, 128, 16, 32, 32)),
    "3b": (28, 480, (128, 128, 192, 32, 96, 64)),
    "4a": (14, 512, (192, 96, 208, 16, 48, 64)),
    "4b": (14, 512, (160, 112, 224, 24, 64, 64)),
    "4c": (14, 512, (128, 128, 256, 24, 64, 64)),
    "4d": (14, 528, (112, 144, 288, 32, 64, 64)),
    "4e": (14, 832, (256, 160, 320, 32, 128, 128)),
    "5a": (7, 832, (256, 160, 320, 32, 128, 128)),
    "5b": (7, 1024, (384, 192, 384, 48, 128, 128)),
}

FEW = {**NARROW, "num_classes": 4}
"""Fields of networks of few modules: others than `NARROW`, as traces are kept by the fields."""


@pytest.fixture
def few_modules(monkeypatch):
    """Leaves the modules before which, or after which, there is something else."""
    for place in ("resnet_jax.models.googlenet.TABLE_1", f"{__name__}.MODULES"):
        table = googlenet.TABLE_1 if place.endswith("TABLE_1") else MODULES
        monkeypatch.setattr(place, {name: table[name] for name in ("3b", "4a", "4d", "4e")})


def without_auxiliary_heads(params):
    return {name: leaf for name, leaf in params.items() if not name.startswith("auxiliary")}


def response_norm(x):
    return F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)


def paper(x, p, s, train):
    """Returns the network of table 1 and figure 3."""

    def unit(x, p, stride=1):
        return F.relu(convolve(x, p["conv"], stride))

    def auxiliary(x, p):
        x = unit(F.avg_pool2d(x, 5, 3), p["conv"])
        return linear(F.relu(linear(flatten(x), p["fc"])), p["head"])

    pool = functools.partial(F.max_pool2d, kernel_size=3, stride=2, ceil_mode=True)
    x = response_norm(pool(unit(x, p["conv1"], 2)))
    x = pool(response_norm(unit(unit(x, p["conv2_reduce"]), p["conv2"])))
    outputs = []
    for name in MODULES:
        q = p[f"inception{name}"]
        branches = [
            unit(x, q["conv1x1"]),
            unit(unit(x, q["conv3x3_reduce"]), q["conv3x3"]),
            unit(unit(x, q["conv5x5_reduce"]), q["conv5x5"]),
            unit(F.max_pool2d(x, 3, 1, 1), q["pool_proj"]),
        ]
        x = torch.cat(branches, 1)
        if train and name in ("4a", "4d"):
            outputs.append(auxiliary(x, p["auxiliary1" if name == "4a" else "auxiliary2"]))
        if name in ("3b", "4e"):
            x = pool(x)
    return [linear(x.mean((2, 3)), p["head"]), *outputs], s


@needs_torch
@pytest.mark.usefixtures("few_modules")
def test_a_few_modules_of_the_papers_form_equal_torch():
    compare(create_model("googlenet", **FEW), 224, paper, gradients=False)


@needs_torch
@pytest.mark.slow
def test_the_papers_form_equals_torch():
    compare(create_model("googlenet", **NARROW), 224, paper)


def torchvision(width, units, classes):
    """Returns torchvision's module, by its layout."""
    nn = torch.nn

    def unit(inputs, filters, size=1, stride=1):
        module = nn.Sequential()
        module.add_module("conv", nn.Conv2d(inputs, filters, size, stride, size // 2, bias=False))
        module.add_module("bn", nn.BatchNorm2d(filters, eps=0.001))
        module.add_module("relu", nn.ReLU())
        return module

    class Inception(nn.Module):
        def __init__(self, inputs, f1, f3_reduce, f3, f5_reduce, f5, f_pool):
            super().__init__()
            self.branch1 = unit(inputs, f1)
            self.branch2 = nn.Sequential(unit(inputs, f3_reduce), unit(f3_reduce, f3, 3))
            self.branch3 = nn.Sequential(unit(inputs, f5_reduce), unit(f5_reduce, f5, 3))
            pool = nn.MaxPool2d(3, 1, 1, ceil_mode=True)
            self.branch4 = nn.Sequential(pool, unit(inputs, f_pool))

        def forward(self, x):
            branches = (self.branch1, self.branch2, self.branch3, self.branch4)
            return torch.cat([branch(x) for branch in branches], 1)

    class Auxiliary(nn.Module):
        def __init__(self, inputs):
            super().__init__()
            self.conv = unit(inputs, 2 * width)
            self.fc1 = nn.Linear(32 * width, units)
            self.fc2 = nn.Linear(units, classes)

        def forward(self, x):
            x = self.conv(F.adaptive_avg_pool2d(x, (4, 4))).flatten(1)
            return self.fc2(F.relu(self.fc1(x)))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = unit(3, width, 7, 2)
            self.conv2 = unit(width, width)
            self.conv3 = unit(width, 3 * width, 3)
            inputs = 3 * width
            for name, (_, outputs, filters) in MODULES.items():
                filters = (n * width // 64 for n in filters)
                setattr(self, f"inception{name}", Inception(inputs, *filters))
                inputs = outputs * width // 64
            self.aux1 = Auxiliary(512 * width // 64)
            self.aux2 = Auxiliary(528 * width // 64)
            self.fc = nn.Linear(inputs, classes)

        def forward(self, x):
            x = F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
            x = F.max_pool2d(self.conv3(self.conv2(x)), 3, 2, ceil_mode=True)
            heads = []
            for name in MODULES:
                x = getattr(self, f"inception{name}")(x)
                if self.training and name in ("4a", "4d"):
                    heads.append((self.aux1 if name == "4a" else self.aux2)(x))
                if name in ("3b", "4e"):
                    x = F.max_pool2d(x, 3 if name == "3b" else 2, 2, ceil_mode=True)
            return [self.fc(x.mean((2, 3))), *heads]

    return Network()


def torchvision_name(path, width):
    whole = {
        "conv1": "conv1",
        "conv2_reduce": "conv2",
        "conv2": "conv3",
        "head": "fc",
        "auxiliary1": "aux1",
        "auxiliary2": "aux2",
    }
    inner = {
        "conv1x1": "branch1",
        "conv3x3_reduce": "branch2.0",
        "conv3x3": "branch2.1",
        "conv5x5_reduce": "branch3.0",
        "conv5x5": "branch3.1",
        "pool_proj": "branch4.1",
        "fc": "fc1",
        "head": "fc2",
    }
    first, *rest = path.split(".")
    name = ".".join([whole.get(first, first), *(inner.get(part, part) for part in rest)])
    return name, (4, 4, 2 * width) if name.endswith("fc1") else None


def compare_with_torchvisions(fields, **options):
    width, classes = fields["width"], fields["num_classes"]
    names = functools.partial(torchvision_name, width=width)
    compare(
        create_model("googlenet_bn", **fields),
        76,
        functools.partial(run_module, functools.partial(torchvision, width, 6, classes)),
        batch=8,
        convert=functools.partial(torch_names, names=names),
        tolerance=1e-4,
        **options,
    )


@needs_torch
@pytest.mark.usefixtures("few_modules")
def test_a_few_modules_of_torchvisions_form_equal_torch():
    compare_with_torchvisions(FEW, gradients=False)


@needs_torch
@pytest.mark.slow
def test_torchvisions_form_equals_torch():
    compare_with_torchvisions(NARROW)


@pytest.mark.parametrize(
    ("name", "alone", "auxiliary"),
    [("googlenet", 6_998_552, 6_379_728), ("googlenet_bn", 6_624_904, 6_379_984)],
)
def test_counts(name, alone, auxiliary):
    variables = shapes(create_model(name), 224)
    assert count(variables["params"]) == alone + auxiliary
    assert name != "googlenet" or alone + auxiliary == 13_378_280
    assert count(without_auxiliary_heads(variables["params"])) == alone
    assert ("batch_stats" in variables) == (name == "googlenet_bn")


@pytest.mark.parametrize("name", ["googlenet", "googlenet_bn"])
def test_sizes_of_the_modules(name):
    found = sizes(create_model(name), 224)  # the trace of test_counts
    assert found["conv1"] == (112, 112, 64)
    assert found["conv2"] == (56, 56, 192)
    for module, (side, channels, filters) in MODULES.items():
        inside = f"inception{module}"
        assert found[inside] == (side, side, channels)
        layers = (
            *("conv1x1", "conv3x3_reduce", "conv3x3"),
            *("conv5x5_reduce", "conv5x5", "pool_proj"),
        )
        for layer, n in zip(layers, filters, strict=True):
            assert found[f"{inside}.{layer}"] == (side, side, n)
    assert found["head"] == (1000,)


@pytest.mark.usefixtures("few_modules")
def test_types():
    check_types(create_model("googlenet_bn", **FEW), 31)


@pytest.mark.usefixtures("few_modules")
@pytest.mark.parametrize("rate", ["dropout_rate", "auxiliary_dropout_rate"])
def test_dropout(rate):
    check_draws_in_training_only(create_model("googlenet", **{**FEW, rate: 0.5}), 79)


@pytest.mark.usefixtures("few_modules")
def test_auxiliary_logits_are_sown_in_training_only():
    module = create_model("googlenet", **FEW)
    images = jax.ShapeDtypeStruct((3, 79, 79, 3), jnp.float32)

    def sown(module, train):
        apply = functools.partial(module.apply, train=train, mutable=["batch_stats", NAME])
        _, updates = jax.eval_shape(apply, shapes(module, 79), images)
        return jax.tree.map(jnp.shape, updates.get(NAME, {}))

    heads = {f"auxiliary{i}": {"logits": ((3, 4),)} for i in (1, 2)}
    assert sown(module, train=True) == heads
    assert sown(module, train=False) == {}
    without = module.clone(auxiliary_heads=False)
    assert sown(without, train=True) == {}
    kept = without_auxiliary_heads(shapes(module, 79)["params"])
    assert shapes(without, 79)["params"] == kept


@pytest.mark.usefixtures("few_modules")
def test_evaluation_does_without_the_auxiliary_parameters():
    module = create_model("googlenet", **FEW)
    params = without_auxiliary_heads(shapes(module, 79)["params"])
    images = jax.ShapeDtypeStruct((3, 40, 40, 3), jnp.float32)  # too small for the heads
    logits = jax.eval_shape(
        functools.partial(module.apply, train=False), {"params": params}, images
    )
    assert logits.shape == (3, 4)


@pytest.mark.parametrize(
    ("name", "std", "bias"), [("googlenet", 1.0, 0.2), ("googlenet_bn", 2.0, None)]
)
@pytest.mark.usefixtures("few_modules")
def test_the_start(name, std, bias):
    module = create_model(name, **FEW)
    images = jnp.ones((1, 79, 79, 3))
    params = jax.jit(lambda: module.init(KEY, images, train=False)["params"]["conv2"]["conv"])()
    assert float(params["kernel"].std()) == pytest.approx(np.sqrt(std / 72), rel=0.05)
    assert ("bias" in params) == (bias is not None)
    if bias is not None:
        np.testing.assert_array_equal(params["bias"], np.float32(bias))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: shapes(create_model("googlenet"), 30),
            "GoogLeNet needs images of at least 31x31 pixels; these are 30x30",
        ),
        (
            lambda: shapes(create_model("googlenet"), 78),
            "auxiliary heads need images of at least 79x79 pixels; use auxiliary_heads=False",
        ),
        (
            lambda: create_model("googlenet", width=20),
            "width is 20; it must be a multiple of 8",
        ),
        (
            lambda: create_model("googlenet", bn_group_size=4),
            "googlenet has no option 'bn_group_size'; a network of another name has",
        ),
        (
            lambda: create_model("googlenet_bn", bn_group_size=0),
            "bn_group_size is 0; it must be a positive number of images, 'global' or None",
        ),
        (
            lambda: create_model("googlenet", auxiliary_dropout_rate=-0.1),
            r"auxiliary_dropout_rate is -0.1; it must be in \[0, 1\)",
        ),
        (lambda: GoogLeNet(form="tf"), "form is 'tf'; it must be one of "),  # pyrefly: ignore
    ],
)
def test_wrong_input_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
