import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resnet_jax.data import Statistics
from resnet_jax.models import create_model
from resnet_jax.parallel import AXIS, Replicas
from resnet_jax.training import init_state, make_train_step
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.schedules import Plateau, make_schedule
from resnet_jax.training.step import AUXILIARY_WEIGHT, cross_entropy
from tests.precision import double, double_precision
from tests.quick import few_optimizations
from tests.tiny import tiny_config

BATCH, SIZE, CLASSES = 32, 8, 10
STATISTICS = Statistics(mean=np.full(3, 120, np.float32), std=np.full(3, 60, np.float32))


@pytest.fixture(autouse=True)
def _compile_quickly():
    with few_optimizations():
        yield


def batch(seed):
    random = np.random.default_rng(seed)
    return {
        "image": random.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
        "label": random.integers(0, CLASSES, BATCH, np.int32),
        "crop_offset": random.integers(0, 3, (BATCH, 2), np.int64),
        "flip": random.integers(0, 2, BATCH).astype(bool),
    }


def initial(model, optimizer):
    """Returns a state before the first step, of numpy, for which nothing has to be compiled."""
    init = functools.partial(init_state, model, optimizer, (SIZE, SIZE, 3), seed=0)
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(init))
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: random.normal(0.1, 0.3, x.shape).astype(x.dtype), state.params)
    return state.replace(params=params, plateau=Plateau.start())


def take_steps(devices, steps, *, mapping="pmap", counter=None, **options):
    """Returns the states after each step and their metrics, in float64, as numpy."""
    with double_precision():
        return take_steps_in("float64", devices, steps, mapping, counter, **options)


def take_steps_in(dtype, devices, steps, mapping="pmap", counter=None, **options):
    replicas = Replicas(mapping, devices=jax.devices()[:devices])
    config = tiny_config()
    fields = {"stage_sizes": (1,), "width": 4, "bn_group_size": 8, "dtype": dtype, **options}
    model = create_model("cifar_resnet8", bn_axis_name=AXIS, **fields)
    optimizer = make_optimizer(config.optimizer)
    step = make_train_step(
        model,
        optimizer,
        make_schedule(config.schedule, config.total_steps),
        STATISTICS,
        padding=1,
        label_smoothing=0.0,
        frozen=(),
        seed=0,
    )

    def counted(state, batch):
        if counter is not None:
            counter.append(1)
        return step(state, batch)

    mapped = replicas.map(counted, donate=True)
    before = initial(model, optimizer)
    state = replicas.place(double(before) if dtype == "float64" else before)
    found = []
    for number in range(steps):
        state, metrics = mapped(state, replicas.shard(batch(number)))
        found.append(jax.device_get((state, metrics)))
    return found


def assert_close(one, other, tolerance):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        largest = max(float(np.max(np.abs(a))), 1e-3)
        np.testing.assert_allclose(
            a, b, rtol=0, atol=tolerance * largest, err_msg=jax.tree_util.keystr(path)
        )


@pytest.mark.parametrize(
    ("group_size", "devices", "mapping"),
    [
        (4, 2, "pmap"),  # inside a replica
        pytest.param(16, 4, "shard_map", marks=pytest.mark.slow),  # two replicas
        ("global", 8, "pmap"),
    ],
)
def test_any_number_of_devices_takes_the_same_steps_traced_once(group_size, devices, mapping):
    alone = take_steps(1, 3, bn_group_size=group_size)
    traces = []
    options = {"mapping": mapping, "counter": traces, "bn_group_size": group_size}
    assert_close(alone, take_steps(devices, 3, **options), 1e-9)
    assert len(traces) == 1


def test_bfloat16_keeps_parameters_and_statistics_in_float32():
    exact = take_steps_in("float32", 1, 1)
    rounded = take_steps_in("bfloat16", 1, 1)
    assert {leaf.dtype for leaf in jax.tree.leaves(rounded[0][0].variables)} == {
        np.dtype("float32")
    }
    assert rounded[0][1]["loss"] == pytest.approx(exact[0][1]["loss"], rel=0.02)
    assert rounded[0][1]["loss"] != exact[0][1]["loss"]


def test_the_step_is_that_of_the_definition():
    """One step on one device, written out with plain gradients and no axis."""
    with double_precision():
        (state, metrics), *_ = take_steps_in("float64", 1, 1, bn_group_size=None)
        check_definition(state, metrics)


def check_definition(state, metrics):
    config = tiny_config()
    model = create_model("cifar_resnet8", stage_sizes=(1,), width=4, dtype="float64")
    optimizer = make_optimizer(config.optimizer)
    before = double(initial(model, optimizer))

    rows = batch(0)
    images = (rows["image"].astype(np.float64) - 120) / 60
    images[rows["flip"]] = images[rows["flip"], :, ::-1]
    images = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    images = np.stack(
        [
            image[y : y + SIZE, x : x + SIZE]
            for image, (y, x) in zip(images, rows["crop_offset"], strict=True)
        ]
    )

    def loss_of(params):
        logits, updates = model.apply(
            {"params": params, "batch_stats": before.batch_stats},
            jnp.asarray(images),
            train=True,
            mutable=["batch_stats"],
        )
        right = jax.nn.log_softmax(logits)[jnp.arange(BATCH), rows["label"]]
        return -right.mean(), (updates["batch_stats"], logits)

    definition = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    (loss, (batch_stats, logits)), gradients = definition(before.params)
    params = jax.tree.map(lambda p, g: p - 0.1 * (g + 1e-4 * p), before.params, gradients)

    assert metrics["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert metrics["learning_rate"] == pytest.approx(0.1)
    assert metrics["top1_error"] == np.mean(np.argmax(logits, axis=-1) != rows["label"])
    assert_close(jax.device_get(params), state.params, 1e-6)
    assert_close(jax.device_get(batch_stats), state.batch_stats, 1e-6)
    assert state.step == 1
    assert (state.window.steps, state.window.loss) == (1, metrics["loss"])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_that_of_the_smoothed_target(smoothing):
    random = np.random.default_rng(0)
    logits = random.normal(size=(6, 4)).astype(np.float32)
    labels = random.integers(0, 4, 6)
    target = np.full((6, 4), smoothing / 4)
    target[np.arange(6), labels] += 1 - smoothing
    log_likelihood = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -(target * log_likelihood).sum(axis=1).mean()
    found = cross_entropy(jnp.asarray(logits), jnp.asarray(labels, jnp.int32), smoothing)
    assert found == pytest.approx(expected, rel=1e-5)


class WithAuxiliaryHeads(nn.Module):
    """A linear layer for the logits, and one for each of as many heads as are wanted."""

    heads: int

    @nn.compact
    def __call__(self, images, *, train):
        x = images.reshape(len(images), -1)
        for i in range(self.heads):
            logits = nn.Dense(CLASSES, name=f"auxiliary{i}")(x)
            if train and not self.is_initializing():
                self.sow("auxiliary_logits", f"logits{i}", logits)
        return nn.Dense(CLASSES, name="head")(x)


def test_auxiliary_losses_take_part_with_their_weight():
    def first_step(heads):
        replicas = Replicas("pmap", devices=jax.devices()[:2])
        config = tiny_config()
        optimizer = make_optimizer(config.optimizer)
        model = WithAuxiliaryHeads(heads)
        step = make_train_step(
            model,
            optimizer,
            make_schedule(config.schedule, config.total_steps),
            STATISTICS,
            padding=1,
            label_smoothing=0.1,
            frozen=(),
            seed=0,
        )
        before = double(initial(model, optimizer))
        # All heads alike, so that each has the gradient of the network's own, times its weight.
        head = double(initial(WithAuxiliaryHeads(0), optimizer)).params["head"]
        params = dict.fromkeys(before.params, head)
        state, metrics = replicas.map(step)(
            replicas.place(before.replace(params=params)), replicas.shard(batch(0))
        )
        moved = jax.device_get(state.params)
        rate = float(metrics["learning_rate"])
        decay = config.optimizer.weight_decay
        gradients = jax.tree.map(lambda old, new: (old - new) / rate - decay * old, params, moved)
        return float(metrics["loss"]), gradients, state

    with double_precision():
        alone, reference, _ = first_step(0)
        loss, gradients, state = first_step(2)
    assert AUXILIARY_WEIGHT == 0.3
    assert loss == pytest.approx(1.6 * alone, rel=1e-9)
    assert state.batch_stats == {}
    assert_close(gradients["head"], reference["head"], 1e-6)
    scaled = jax.tree.map(lambda g: 0.3 * g, reference["head"])
    for i in (0, 1):
        assert_close(gradients[f"auxiliary{i}"], scaled, 1e-6)
