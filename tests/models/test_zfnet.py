import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import InputError, create_model
from tests.models.shapes import (
    KEY,
    check_draws_in_training_only,
    check_types,
    count,
    shapes,
    sizes,
)
from tests.models.torch_reference import QUICK, F, compare, convolve, flatten, linear, needs_torch

NARROW = {"filters": (4, 6, 8, 8, 6), "hidden_units": 10, "num_classes": 5, "dropout_rate": 0.0}


def network(x, p, s, train):
    """Returns the network of figure 3."""
    pool = functools.partial(F.max_pool2d, kernel_size=3, stride=2, ceil_mode=True)
    contrast = functools.partial(F.local_response_norm, size=5, alpha=5e-4, beta=0.75, k=2.0)
    x = contrast(pool(F.relu(convolve(x, p["conv1"], 2, 1))))
    x = contrast(pool(F.relu(convolve(x, p["conv2"], 2, 0))))
    for i in (3, 4, 5):
        x = F.relu(convolve(x, p[f"conv{i}"]))
    x = flatten(F.adaptive_avg_pool2d(pool(x), 6))
    x = F.relu(linear(x, p["hidden"]["fc1"]))
    x = F.relu(linear(x, p["hidden"]["fc2"]))
    return [linear(x, p["head"])], s


@needs_torch
@pytest.mark.parametrize("pixels", [224, 47])
def test_equals_torch(pixels):
    compare(create_model("zfnet", **NARROW), pixels, network)


@pytest.mark.parametrize(
    ("name", "filters", "expected"),
    [
        ("zfnet", (96, 256, 384, 384, 256), 62_357_608),
        ("zfnet_wide", (96, 256, 512, 1024, 512), 107_627_624),
    ],
)
def test_counts_and_sizes(name, filters, expected):
    module = create_model(name)
    variables = shapes(module, 224)
    assert set(variables) == {"params"}
    assert count(variables) == expected
    convolutions = [7 * 7 * 3, 5 * 5 * filters[0], *(9 * n for n in filters[1:4])]
    dense = [(36 * filters[4], 4096), (4096, 4096), (4096, 1000)]
    total = sum((a + 1) * b for a, b in [*zip(convolutions, filters, strict=True), *dense])
    assert total == expected

    found = sizes(module, 224)
    for i, (side, n) in enumerate(zip((110, 26, 13, 13, 13), filters, strict=True), 1):
        assert found[f"conv{i}"] == (side, side, n)
    assert variables["params"]["hidden"]["fc1"]["kernel"].shape[0] == 6 * 6 * filters[4]


def test_types_and_dropout():
    check_types(create_model("zfnet", **NARROW), 64)
    check_draws_in_training_only(create_model("zfnet", **{**NARROW, "dropout_rate": 0.5}), 64)


def test_the_start_is_the_papers():
    module = create_model("zfnet", **{**NARROW, "filters": (30,) * 5, "hidden_units": 30})
    init = jax.jit(functools.partial(module.init, train=False), compiler_options=QUICK)
    params = init(KEY, jnp.ones((1, 47, 47, 3)))["params"]
    for leaves in {**params.pop("hidden"), **params}.values():
        assert float(leaves["kernel"].std()) == pytest.approx(0.01, rel=0.2)
        np.testing.assert_array_equal(leaves["bias"], 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: shapes(create_model("zfnet"), 46),
            "ZFNet needs images of at least 47x47 pixels; these are 46x46",
        ),
        (lambda: create_model("zfnet", filters=(4,)), r"filters is \(4,\); it must have 5 numbers"),
        (lambda: create_model("zfnet", dropout_rate=-1), r"dropout_rate is -1; it must be in \[0,"),
        (lambda: create_model("zfnet", hidden_units=0), "hidden_units is 0; it must be at least 1"),
        (lambda: create_model("zfnet", groups=2), "there is no option of zfnet 'groups'"),
    ],
)
def test_wrong_input_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
