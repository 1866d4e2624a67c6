import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import InputError, create_model
from resnet_jax.models import PReLUNet
from resnet_jax.models.prelu_net import PReLU
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
    torch,
)

NARROW = {
    "stem_filters": 3,
    "filters": (4, 5, 6),
    "hidden_units": 7,
    "num_classes": 5,
    "dropout_rate": 0.0,
}
# Table 3: filters and numbers of the 3x3 convolutions on 56, 28 and 14 pixels, and the complexity.
MODELS = {
    "prelu_net_a": ((256, 512, 512), 5, 1.90),
    "prelu_net_b": ((256, 512, 512), 6, 2.32),
    "prelu_net_c": ((384, 768, 896), 6, 5.30),
}
BINS = 7 * 7 + 3 * 3 + 2 * 2 + 1
COUNTS = {
    "prelu_net_a": 178_032_072,
    "prelu_net_b": 183_343_048,
    "prelu_net_c": 330_623_944,
}


def network(x, p, s, train, stage_sizes):
    """Returns the network of table 3."""

    def rectify(x, p):
        slope = p["slope"].reshape(1, -1, *[1] * (x.ndim - 2))
        return torch.clamp(x, min=0) + slope * torch.clamp(x, max=0)

    def level(x, bins):  # bin by bin
        rows, columns = (
            [slice(math.floor(i * n / bins), math.ceil((i + 1) * n / bins)) for i in range(bins)]
            for n in x.shape[2:]
        )
        cells = [[x[:, :, r, c].amax((2, 3)) for c in columns] for r in rows]
        return torch.stack([torch.stack(row, -1) for row in cells], -2)

    x = rectify(convolve(x, p["conv1"], 2), p["prelu1"])
    for stage, convolutions in enumerate(stage_sizes, 2):
        x = F.max_pool2d(x, 2, 2)
        for i in range(1, convolutions + 1):
            x = rectify(convolve(x, p[f"conv{stage}_{i}"]), p[f"prelu{stage}_{i}"])
    x = torch.cat([flatten(level(x, bins)) for bins in (7, 3, 2, 1)], 1)
    hidden = p["hidden"]
    x = rectify(linear(x, hidden["fc1"]), hidden["act1"])
    x = rectify(linear(x, hidden["fc2"]), hidden["act2"])
    return [linear(x, p["head"])], s


@needs_torch
@pytest.mark.parametrize(("stage_sizes", "pixels"), [((1, 2, 1), 224), ((1, 1, 2), 15)])
def test_shorter_networks_equal_torch(stage_sizes, pixels):
    reference = functools.partial(network, stage_sizes=stage_sizes)
    module = create_model("prelu_net_a", stage_sizes=stage_sizes, **NARROW)
    compare(module, pixels, reference)


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pixels"), [("prelu_net_a", 224), ("prelu_net_b", 40), ("prelu_net_c", 15)]
)
def test_equals_torch(name, pixels):
    reference = functools.partial(network, stage_sizes=(MODELS[name][1],) * 3)
    compare(create_model(name, **NARROW), pixels, reference)


@pytest.mark.parametrize("name", MODELS)
def test_counts_sizes_and_complexity_are_those_of_table_3(name):
    filters, convolutions, complexity = MODELS[name]
    module = create_model(name)
    layers = {"1": (7 * 7 * 3, 96, 112)}
    inputs = 96
    for stage, (n, side) in enumerate(zip(filters, (56, 28, 14), strict=True), 2):
        for i in range(1, convolutions + 1):
            layers[f"{stage}_{i}"] = (9 * inputs, n, side)
            inputs = n
    dense = [(BINS * inputs, 4096), (4096, 4096)]
    # A kernel, and a bias and a slope for each of its outputs.
    total = sum((a + 2) * b for a, b, _ in layers.values()) + sum((a + 2) * b for a, b in dense)
    variables = shapes(module, 224)
    assert set(variables) == {"params"}
    assert count(variables) == total + 4097 * 1000 == COUNTS[name]

    found = sizes(module, 224)
    for layer, (_, n, side) in layers.items():
        assert found[f"conv{layer}"] == found[f"prelu{layer}"] == (side, side, n)
    assert len(layers) + 3 == (19 if name == "prelu_net_a" else 22)
    operations = sum(a * b * side**2 for a, b, side in layers.values())
    assert operations / 1e10 == pytest.approx(complexity, rel=0.01)


def test_types_and_dropout():
    check_types(create_model("prelu_net_a", **NARROW), 32)
    module = create_model("prelu_net_a", **{**NARROW, "dropout_rate": 0.5})
    check_draws_in_training_only(module, 32)


def test_slopes_belong_to_channels_and_start_at_a_quarter():
    x = jnp.array([[-2.0, -2.0, 3.0], [4.0, 0.0, -8.0]])
    y, variables = PReLU().init_with_output(KEY, x)
    np.testing.assert_array_equal(variables["params"]["slope"], [0.25, 0.25, 0.25])
    np.testing.assert_allclose(y, [[-0.5, -0.5, 3], [4, 0, -2]])
    slopes = {"params": {"slope": jnp.array([0.0, 1.0, -0.5])}}
    np.testing.assert_allclose(jnp.asarray(PReLU().apply(slopes, x)), [[0, -2, 3], [4, 0, 4]])


def test_the_start_keeps_the_variance_of_gradients():
    module = PReLUNet(stage_sizes=(1,), filters=(64,), hidden_units=8, num_classes=500)
    init = jax.jit(functools.partial(module.init, train=False), compiler_options=QUICK)
    params = init(KEY, jnp.ones((1, 15, 15, 3)))["params"]
    for name, size, outputs in (("conv1", 7, 96), ("conv2_1", 3, 64)):
        expected = math.sqrt(2 / ((1 + 0.25**2) * size**2 * outputs))
        assert float(params[name]["kernel"].std()) == pytest.approx(expected, rel=0.05)
    for leaves, expected in ((params["hidden"]["fc1"], 0.01), (params["head"], 0.001)):
        assert float(leaves["kernel"].std()) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: shapes(create_model("prelu_net_a"), 14),
            "PReLU-net needs images of at least 15x15 pixels; these are 14x14",
        ),
        (lambda: PReLUNet(filters=(8, 8)), r"filters is \(8, 8\); it must have 3 numbers"),
        (lambda: PReLUNet(stage_sizes=(1, 0, 1)), r"stage_sizes is \(1, 0, 1\); it needs numbers"),
        (lambda: PReLUNet(stem_filters=0), "stem_filters is 0; it must be at least 1"),
        (lambda: PReLUNet(dropout_rate=1.5), r"dropout_rate is 1.5; it must be in \[0, 1\)"),
    ],
)
def test_wrong_input_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
