import pytest

from resnet_jax import InputError, create_model
from resnet_jax.models import bn_inception
from tests.models.shapes import (
    check_draws_in_training_only,
    check_types,
    count,
    shapes,
    sizes,
)
from tests.models.torch_reference import F, compare, convolve, linear, needs_torch, normalize, torch

NARROW = {"width": 8, "num_classes": 5}
FEW = {"width": 8, "num_classes": 4}
"""Fields of networks of few modules: others than `NARROW`, as traces are kept by the fields."""

# Figure 5: #1x1, #3x3 reduce, #3x3, double #3x3 reduce, double #3x3, pool and projection.
FIGURE = """
3a  64  64  64  64  96 avg  32
3b  64  64  96  64  96 avg  64
3c   0 128 160  64  96 max   0
4a 224  64  96  96 128 avg 128
4b 192  96 128  96 128 avg 128
4c 160 128 160 128 160 avg 128
4d  96 128 192 160 192 avg 128
4e   0 128 192 192 256 max   0
5a 352 192 320 160 224 avg 128
5b 352 192 320 192 224 max 128
"""
MODULES = {name: rest for name, *rest in map(str.split, FIGURE.split("\n")[1:-1])}


@pytest.fixture
def few_modules(monkeypatch):
    """Leaves one module of each kind: with average pooling, of stride 2, with max-pooling."""
    for place in ("resnet_jax.models.bn_inception.FIGURE_5", f"{__name__}.MODULES"):
        table = bn_inception.FIGURE_5 if place.endswith("FIGURE_5") else MODULES
        monkeypatch.setattr(place, {name: table[name] for name in ("3a", "3c", "5b")})


def network(x, p, s, train):
    """Returns the network of figure 5, and the new statistics."""
    new = {}

    def unit(x, path, stride=1):
        q, r, place = p, s, new
        for part in path.split("."):
            q, r, place = q[part], r[part], place.setdefault(part, {})
        y, place["bn"] = normalize(convolve(x, q["conv"], stride), q["bn"], r["bn"], train, 1e-5)
        return F.relu(y)

    if "conv1_depthwise" in p:
        x = unit(convolve(x, p["conv1_depthwise"], 2, groups=3), "conv1")
    else:
        x = unit(x, "conv1", 2)
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    x = unit(unit(x, "conv2_reduce"), "conv2")
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    for name, row in MODULES.items():
        at, stride = f"inception{name}.", 2 if row[0] == "0" else 1
        branches = [unit(x, f"{at}conv1x1")] if row[0] != "0" else []
        branches.append(unit(unit(x, f"{at}conv3x3_reduce"), f"{at}conv3x3", stride))
        y = unit(unit(x, f"{at}double3x3_reduce"), f"{at}double3x3_1")
        branches.append(unit(y, f"{at}double3x3_2", stride))
        if row[5] == "avg":
            y = F.avg_pool2d(x, 3, 1, 1)
        elif stride == 1:
            y = F.max_pool2d(x, 3, 1, 1)
        else:
            y = F.max_pool2d(x, 3, 2, ceil_mode=True)
        branches.append(unit(y, f"{at}pool_proj") if row[6] != "0" else y)
        x = torch.cat(branches, 1)
    return [linear(x.mean((2, 3)), p["head"])], new


@needs_torch
@pytest.mark.usefixtures("few_modules")
def test_one_module_of_each_kind_equals_torch():
    module = create_model("bn_inception", **FEW)
    compare(module, 64, network, batch=8, tolerance=1e-4, gradients=False)


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("separable_stem", [True, False])
def test_equals_torch(separable_stem):
    module = create_model("bn_inception", separable_stem=separable_stem, **NARROW)
    compare(module, 64, network, batch=8, tolerance=1e-4)


SEPARABLE, FULL = 7 * 7 * 8 * 3 + 24 * 64, 7 * 7 * 3 * 64
"""Parameters of the first convolution, as a separable one and as a full one."""


def table_count(stem, biases):
    """Returns the parameters by the figure: kernels, two for each normalised map, and the head."""
    convolutions = [(64, 64), (64 * 9, 192)]
    inputs = 192
    for row in MODULES.values():
        f1, f3_reduce, f3, double_reduce, double, f_pool = (int(row[i]) for i in (0, 1, 2, 3, 4, 6))
        convolutions += [(inputs, f1), (inputs, f3_reduce), (9 * f3_reduce, f3)]
        convolutions += [(inputs, double_reduce), (9 * double_reduce, double), (9 * double, double)]
        convolutions += [(inputs, f_pool)]
        inputs = f1 + f3 + double + (f_pool or inputs)
    assert inputs == 1024
    maps = 64 + sum(n for _, n in convolutions)
    head = (inputs + 1) * 1000
    return stem + sum(a * b for a, b in convolutions) + (3 if biases else 2) * maps + head


def test_counts():
    variables = shapes(create_model("bn_inception"), 224)
    assert count(variables["params"]) == table_count(SEPARABLE, biases=False) == 11_278_528
    assert table_count(FULL, biases=False) == 11_285_224
    # What others count has biases before the normalisation, too.
    assert table_count(FULL, biases=True) == 11_295_240


@pytest.mark.usefixtures("few_modules")
def test_a_full_first_convolution_has_more_parameters():
    module = create_model("bn_inception", num_classes=FEW["num_classes"])
    counts = [count(shapes(module.clone(separable_stem=s), 32)["params"]) for s in (False, True)]
    assert counts[0] - counts[1] == FULL - SEPARABLE


def test_sizes_of_the_modules():
    found = sizes(create_model("bn_inception"), 224)
    expected = {
        "conv1": (112, 64),
        "conv2": (56, 192),
        "inception3a": (28, 256),
        "inception3b": (28, 320),
        "inception3c": (14, 576),
        "inception4a": (14, 576),
        "inception4b": (14, 576),
        "inception4c": (14, 608),
        "inception4d": (14, 608),
        "inception4e": (7, 1056),
        "inception5a": (7, 1024),
        "inception5b": (7, 1024),
    }
    for name, (side, channels) in expected.items():
        assert found[name] == (side, side, channels)


@pytest.mark.usefixtures("few_modules")
def test_images_of_any_size_will_do():
    assert sizes(create_model("bn_inception", **FEW), 1)["head"] == (4,)


@pytest.mark.usefixtures("few_modules")
def test_types_and_dropout():
    module = create_model("bn_inception", **FEW, dropout_rate=0.1)
    check_types(module, 33)
    check_draws_in_training_only(module, 33)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: create_model("bn_inception", width=63), "width is 63; it must be a multiple of 8"),
        (lambda: create_model("bn_inception", width=0), "width is 0; it must be at least 1"),
        (lambda: create_model("bn_inception", dropout_rate=1), r"dropout_rate is 1; it must be in"),
        (
            lambda: create_model("bn_inception", bn_group_size="batch"),
            "bn_group_size is 'batch'; it must be a positive number of images, 'global' or None",
        ),
    ],
)
def test_wrong_input_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
