import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from resnet_jax import BatchNorm, InputError
from resnet_jax.models.normalization import GroupSize
from resnet_jax.parallel import AXIS, Replicas

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(0.5, 2, (16, 4, 4, 3)).astype(np.float32)
WEIGHTS = RNG.normal(size=IMAGES.shape).astype(np.float32)
AFFINE = {
    "scale": np.array([0.5, 1.0, -2.0], np.float32),
    "bias": np.array([0.1, 0.0, 3.0], np.float32),
}
RUNNING = {
    "mean": np.array([1.0, -1.0, 0.2], np.float32),
    "var": np.array([0.5, 2.0, 4.0], np.float32),
}
VARIABLES = {"params": AFFINE, "batch_stats": RUNNING}


def apply(x, **options):
    """Returns the output, the gradients of its weighted sum and the new running statistics."""
    return compiled(**options)(AFFINE, x)


@functools.cache
def compiled(*, train, **options):
    module = BatchNorm(**options)

    @jax.jit
    def run(params, x):
        def loss_of(params, x):
            y, updates = module.apply(
                {"params": params, "batch_stats": RUNNING}, x, train=train, mutable=["batch_stats"]
            )
            weighted = y.astype(jnp.float32) * WEIGHTS[: len(x)]
            return weighted.sum(), (y, updates["batch_stats"])

        gradients, (y, stats) = jax.grad(loss_of, argnums=(0, 1), has_aux=True)(params, x)
        return y, gradients, stats

    return run


def numpy_batch_norm(x, epsilon, momentum):
    """Returns the output and the new running statistics, from the definition in float64."""
    x = x.astype(np.float64)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    y = AFFINE["scale"] * (x - mean) / np.sqrt(var + epsilon) + AFFINE["bias"]
    new = {"mean": mean, "var": var}
    stats = {k: momentum * RUNNING[k] + (1 - momentum) * new[k] for k in new}
    return y, stats


def assert_close(actual, expected, share=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=share * np.abs(b).max()),
        actual,
        expected,
    )


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_training_equals_the_definition(momentum):
    y, _, stats = apply(IMAGES, train=True, momentum=momentum, epsilon=1e-3)
    assert_close((y, dict(stats)), numpy_batch_norm(IMAGES, 1e-3, momentum))


def test_evaluation_uses_the_running_statistics_and_keeps_them():
    y, _, stats = apply(IMAGES, train=False, epsilon=1e-3)
    deviation = np.sqrt(RUNNING["var"] + 1e-3)
    assert_close(y, AFFINE["scale"] * (IMAGES - RUNNING["mean"]) / deviation + AFFINE["bias"])
    jax.tree.map(np.testing.assert_array_equal, dict(stats), RUNNING)


@pytest.mark.parametrize("train", [False, True])
def test_equals_torch(train):
    torch = pytest.importorskip("torch")
    norm = torch.nn.BatchNorm2d(3, momentum=0.2, eps=1e-4, dtype=torch.float64).train(train)
    ours = {**AFFINE, **RUNNING}
    names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    state = {theirs: torch.tensor(ours[name]) for theirs, name in names.items()}
    norm.load_state_dict(state, strict=False)
    x = torch.tensor(IMAGES, dtype=torch.float64, requires_grad=True)
    y = norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    (y * torch.tensor(WEIGHTS)).sum().backward()

    output, (params, x_gradient), stats = apply(IMAGES, train=train, momentum=0.8, epsilon=1e-4)
    assert_close(output, y.detach().numpy())
    assert_close(params["scale"], norm.weight.grad.numpy())
    assert_close(params["bias"], norm.bias.grad.numpy())
    assert_close(x_gradient, x.grad.numpy())
    assert_close(stats["mean"], norm.running_mean.numpy())
    m = IMAGES.size // 3  # torch's running variance is unbiased
    moved = norm.running_var.numpy() - 0.8 * RUNNING["var"] * train
    assert_close(stats["var"] - 0.8 * RUNNING["var"] * train, moved * ((m - 1) / m if train else 1))


@pytest.mark.parametrize("size", [1, 4, 16])
def test_groups_inside_a_batch_equal_calls_of_their_own(size):
    output, _, stats = apply(IMAGES, train=True, group_size=size)
    parts = [apply(part, train=True) for part in np.split(IMAGES, 16 // size)]
    assert_close(output, np.concatenate([y for y, _, _ in parts]))
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *(dict(s) for _, _, s in parts))
    assert_close(dict(stats), mean)


def test_global_is_the_whole_batch_where_there_are_no_replicas():
    jax.tree.map(
        np.testing.assert_array_equal,
        apply(IMAGES, train=True, group_size="global"),
        apply(IMAGES, train=True),
    )


class Net(nn.Module):
    """The least network in which an image's gradient goes through others' statistics.

    A bias before the normalisation would have a gradient of nothing but rounding.
    """

    group_size: GroupSize
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        norm = BatchNorm(group_size=self.group_size, axis_name=self.axis_name, name="bn")
        x = norm(nn.Dense(3, use_bias=False, name="dense")(x), train=train)
        return nn.Dense(2, name="head")(nn.relu(x).mean((1, 2)))


def step(model, average):
    """Returns the step of one replica: loss, gradients and statistics, averaged over all."""

    def run(variables, batch):
        def loss_of(params):
            logits, updates = model.apply(
                {**variables, "params": params}, batch["x"], train=True, mutable=["batch_stats"]
            )
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["y"][:, None], axis=1)
            return -chosen.mean(), updates["batch_stats"]

        (loss, stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
        return average((loss, stats, gradients))

    return run


def pmean(tree):
    return lax.pmean(tree, AXIS)


BATCH = {"x": IMAGES, "y": np.arange(16) % 3 // 2}


@functools.cache
def on_one_device(size):
    model = Net(size)
    variables = model.init(jax.random.key(0, impl="rbg"), IMAGES[:1], train=False)
    return variables, jax.jit(step(model, lambda tree: tree))(variables, BATCH)


@pytest.mark.parametrize(
    ("mapping", "size", "count"),
    [
        *[("pmap", 4, count) for count in (2, 4, 8)],  # 8, 4 and 2 images a replica
        ("pmap", 8, 8),  # two groups of four replicas
        ("pmap", "global", 2),
        ("shard_map", 4, 8),
        ("shard_map", 16, 4),
    ],
)
def test_groups_are_the_same_on_any_number_of_replicas(mapping, size, count):
    variables, expected = on_one_device(size)
    replicas = Replicas(mapping, devices=jax.devices()[:count])
    mapped = replicas.map(step(Net(size, AXIS), pmean))
    assert_close(mapped(replicas.place(variables), replicas.shard(BATCH)), expected)


def test_without_groups_the_statistics_are_those_of_a_replica():
    variables, expected = on_one_device(4)
    replicas = Replicas(devices=jax.devices()[:4])
    mapped = replicas.map(step(Net(None), pmean))
    assert_close(mapped(replicas.place(variables), replicas.shard(BATCH)), expected)


@pytest.mark.parametrize("offset", [0, 10, 100, 1000])
def test_what_is_lost_where_the_mean_is_large_against_the_deviation(offset):
    """The mean of squares is off by a few roundings (6e-8), and the variance by as much.

    The variance is (mean / deviation)^2 times smaller: at a ratio of 100 some three digits of it
    are left, at 1000 no more than its order of magnitude.
    """
    x = RNG.normal(0, 1, (8, 4, 4, 3)).astype(np.float32) + np.float32(offset)
    _, _, stats = apply(x, train=True, momentum=0.0)
    lost = 10 * 6e-8 * (1 + offset**2)
    np.testing.assert_allclose(stats["var"], x.astype(np.float64).var((0, 1, 2)), rtol=lost)


def test_a_constant_channel_gives_finite_numbers():
    x = np.full((8, 4, 4, 3), 1234.567, np.float32)
    output, gradients, stats = apply(x, train=True)
    for leaf in jax.tree.leaves((output, gradients, stats)):
        assert np.isfinite(leaf).all()
    assert (stats["var"] >= 0.9 * RUNNING["var"]).all()


def test_bfloat16_keeps_statistics_in_float32():
    x = jnp.asarray(IMAGES, jnp.bfloat16)
    output, _, stats = apply(x, train=True, dtype=jnp.bfloat16)
    assert output.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {jnp.dtype(jnp.float32)}
    expected, statistics = numpy_batch_norm(np.asarray(x, np.float32), 1e-5, 0.9)
    assert_close(dict(stats), statistics)
    np.testing.assert_allclose(output.astype(jnp.float32), expected, rtol=2**-8, atol=2**-8)


def test_groups_that_do_not_divide_the_batch_are_refused():
    message = "bn_group_size 5 does not divide the batch of 16 images"
    with pytest.raises(InputError, match=message):
        apply(IMAGES, train=True, group_size=5)


@pytest.mark.parametrize("size", [3, 6, 12, 32])
def test_groups_that_do_not_fit_the_replicas_are_refused(size):
    variables, _ = on_one_device("global")
    replicas = Replicas(devices=jax.devices()[:4])
    mapped = replicas.map(step(Net(size, AXIS), pmean))
    message = (
        f"bn_group_size {size} fits no whole number of times into a batch of 16 images on "
        "4 replicas of 4: it must divide 4, or be a multiple of it that divides 16"
    )
    with pytest.raises(InputError, match=message):
        mapped(replicas.place(variables), replicas.shard(BATCH))
