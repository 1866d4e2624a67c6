import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import InputError, create_model
from resnet_jax.models import LeNet5
from resnet_jax.models.lenet import DIGITS, initializer, scaled_tanh
from tests.models.shapes import KEY, check_types, count, shapes, sizes
from tests.models.torch_reference import F, compare, convolve, linear, needs_torch, torch

# Table I: which maps of S2 (rows) each of the 16 maps of C3 is connected to.
TABLE = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


def network(x, p, s, train, *, squash, subsampling, table, codes):
    """Returns the network of section II.B."""

    def subsample(x, p):
        # The four inputs of a unit, added.
        total = sum(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1))
        if subsampling == "average":
            return total / 4
        return squash(total * p["coefficient"][:, None, None] + p["bias"][:, None, None])

    def c3(x, p):
        if not table:
            return convolve(x, p, padding=0)
        maps, kernel, used = [], p["kernel"], 0
        for j in range(16):
            rows = [i for i, row in enumerate(TABLE.split()) if row[j] == "X"]
            weights = kernel[:, :, used : used + len(rows)].permute(2, 0, 1)[None]
            maps.append(F.conv2d(x[:, rows], weights) + p["bias"][j])
            used += len(rows)
        assert used == kernel.shape[-1]
        return torch.cat(maps, 1)

    x = subsample(squash(convolve(x, p["c1"], padding=0)), p.get("s2"))
    x = subsample(squash(c3(x, p["c3"])), p.get("s4"))
    x = squash(convolve(x, p["c5"], padding=0)).flatten(1)
    x = squash(linear(x, p["f6"]))
    if codes is None:
        return [linear(x, p["head"])], s
    targets = torch.tensor(codes).double().flatten(1)
    return [-torch.stack([((x - w) ** 2).sum(1) for w in targets], 1)], s


@needs_torch
@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998", "lenet5_modern"])
def test_equals_torch(name):
    original, modern = name == "lenet5_1998", name == "lenet5_modern"
    reference = functools.partial(
        network,
        squash=F.relu if modern else lambda x: 1.7159 * torch.tanh(2 / 3 * x),
        subsampling="average" if modern else "trainable",
        table=original,
        codes=DIGITS if original else None,
    )
    compare(create_model(name), 32, reference, channels=1, batch=3)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("lenet5", {}, 61_750),
        ("lenet5_1998", {}, 60_000),
        ("lenet5_1998", {"output": "linear"}, 60_850),
        ("lenet5_modern", {}, 61_706),
    ],
)
def test_counts(name, options, expected):
    variables = shapes(create_model(name, **options), 32, channels=1)
    assert set(variables) == {"params"}
    assert count(variables) == expected


def test_the_layers_have_the_papers_parameters():
    params = shapes(create_model("lenet5_1998"), 32, channels=1)["params"]
    expected = {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert {layer: count(leaves) for layer, leaves in params.items()} == expected


def test_sizes_of_the_layers():
    found = sizes(create_model("lenet5"), 32, channels=1)
    assert [found[layer] for layer in ("c1", "s2", "c3", "s4", "c5", "f6", "head")] == [
        (28, 28, 6),
        (14, 14, 6),
        (10, 10, 16),
        (5, 5, 16),
        (1, 1, 120),
        (84,),
        (10,),
    ]


def test_the_codes_are_digits():
    assert DIGITS.shape == (10, 12, 7)
    assert set(np.unique(DIGITS)) == {-1, 1}
    apart = (DIGITS[:, None] != DIGITS[None]).sum((2, 3))
    assert apart[~np.eye(10, dtype=bool)].min() >= 10
    seven = DIGITS[7] == 1
    assert seven[0].all()
    assert not seven[10:].any()
    drawn = ["".join("#" if p == 1 else "." for p in row) for row in DIGITS[1]]
    assert drawn[:3] == ["...##..", "..###..", ".####.."]
    assert drawn[9] == ".######"


def test_the_squashing_function_is_that_of_appendix_a():
    x = jnp.array([-1.0, 0.0, 1.0, 100.0])
    np.testing.assert_allclose(scaled_tanh(x), [-1, 0, 1, 1.7159], atol=1e-5)
    slope = jax.vmap(jax.grad(scaled_tanh))(x)
    assert float(slope[1]) == pytest.approx(1.7159 * 2 / 3)


@pytest.mark.parametrize("fan_in", [25, np.array([75, 100, 150])])
def test_the_start(fan_in):
    limit = np.broadcast_to(2.4 / fan_in, 3)
    drawn = np.asarray(initializer("tanh", fan_in)(KEY, (5000, 3)))
    np.testing.assert_allclose(np.abs(drawn).max(0), limit, rtol=0.01)
    np.testing.assert_allclose(drawn.std(0), limit / np.sqrt(3), rtol=0.05)
    drawn = np.asarray(initializer("relu", fan_in)(KEY, (5000, 3)))
    np.testing.assert_allclose(drawn.std(0), np.broadcast_to(np.sqrt(2 / fan_in), 3), rtol=0.05)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998", "lenet5_modern"])
def test_types(name):
    check_types(create_model(name), 32, channels=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: shapes(create_model("lenet5"), 28, channels=1),
            "LeNet-5 needs images of 32x32 pixels, and these are 28x28; pad those of 28x28 by 2",
        ),
        (
            lambda: create_model("lenet5_1998", num_classes=26),
            "output 'rbf' has codes for the 10 digits, and num_classes is 26; use output 'linear'",
        ),
        (
            lambda: create_model("lenet5", subsampling="max"),
            "subsampling is 'max'; it must be one of 'trainable', 'average'",
        ),
        (lambda: LeNet5(connections="A"), "connections is 'A'; it must be"),  # pyrefly: ignore
        (lambda: LeNet5(output="softmax"), "output is 'softmax'; it must"),  # pyrefly: ignore
        (lambda: LeNet5(activation="elu"), "activation is 'elu'; it must"),  # pyrefly: ignore
        (lambda: LeNet5(num_classes=0), "num_classes is 0; it must be at least 1"),
    ],
)
def test_wrong_input_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
