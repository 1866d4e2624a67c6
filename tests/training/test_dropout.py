"""Dropout and auxiliary heads in a step, and in a run that is resumed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resnet_jax.models import registry
from resnet_jax.models.variant import Variant
from resnet_jax.parallel import Replicas
from resnet_jax.training import init_state, make_train_step, train
from resnet_jax.training.dropout import dropout_by_example
from resnet_jax.training.run import Run
from tests.quick import few_optimizations
from tests.tiny import SELDOM, tiny_config
from tests.training.test_step import assert_close

UNITS = 64
KEY = jax.random.key(0)


class TwoHeads(nn.Module):
    """Two hidden layers with dropout, a head, and an auxiliary one with dropout of its own."""

    num_classes: int = 10
    dropout_rate: float = 0.5

    @nn.compact
    def __call__(self, images, *, train):
        x = images.reshape(images.shape[0], -1)
        still = not train or self.is_initializing()
        for i in (1, 2):
            x = nn.relu(nn.Dense(UNITS, name=f"fc{i}")(x))
            x = nn.Dropout(self.dropout_rate, deterministic=still, name=f"dropout{i}")(x)
        if train or self.is_initializing():
            y = nn.Dropout(self.dropout_rate, deterministic=still, name="auxiliary_dropout")(x)
            logits = nn.Dense(self.num_classes, name="auxiliary")(y)
            if not self.is_initializing():
                self.sow("auxiliary_logits", "logits", logits)
        return nn.Dense(self.num_classes, name="head")(x)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(registry._VARIANTS, "two_heads", Variant(TwoHeads))
    with few_optimizations():
        yield


def config(**overrides):
    none = {**SELDOM, "model.stage_sizes": None, "model.width": None}
    return tiny_config(**{"model.name": "two_heads", **none, **overrides})


def dropped(rows, key=KEY):
    """Returns which of the ones that go into two layers of dropout are dropped by either."""

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            drop = [nn.Dropout(0.5, deterministic=False, name=f"drop{i}") for i in (1, 2)]
            return [one(x) == 0 for one in drop]

    @jax.jit
    def masks(rows, key):
        with dropout_by_example(rows):
            return Twice().apply({}, jnp.ones((len(rows), 2, UNITS)), rngs={"dropout": key})

    return np.asarray(masks(jnp.asarray(rows), key))


def test_a_mask_belongs_to_a_row_a_layer_and_a_key():
    one, other = dropped([0, 1, 2, 3])
    masks = [one[0], one[1], one[2], other[0], dropped([0], jax.random.key(1))[0][0]]
    for i, mask in enumerate(masks):
        assert mask.mean() == pytest.approx(0.5, abs=0.15)
        for another in masks[:i]:
            assert np.mean(mask != another) == pytest.approx(0.5, abs=0.15)
    np.testing.assert_array_equal(dropped([2, 0])[0], one[[2, 0]])


def test_what_is_kept_is_scaled_and_evaluation_keeps_all():
    layer = nn.Dropout(0.25)
    x = jnp.full((8, UNITS), 3.0)
    with dropout_by_example(jnp.arange(8)):
        y = np.asarray(layer.apply({}, x, deterministic=False, rngs={"dropout": KEY}))
        still = layer.apply({}, x, deterministic=True, rngs={"dropout": KEY})
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.06)
    np.testing.assert_allclose(y[y != 0], 4.0)
    np.testing.assert_array_equal(still, x)


def test_a_mask_that_is_shared_along_a_dimension_is_shared_there_only():
    layer = nn.Dropout(0.5, broadcast_dims=(1,), deterministic=False)
    with dropout_by_example(jnp.arange(4)):
        y = np.asarray(layer.apply({}, jnp.ones((4, 3, UNITS)), rngs={"dropout": KEY}))
    np.testing.assert_array_equal(y, y[:, :1].repeat(3, axis=1))
    assert (y[0] != y[1]).any()


def take_steps(devices, batches, **options):
    """Returns the metrics and the states of a step for each batch."""
    run = Run.from_config(config(batch_size=32, **options))
    replicas = Replicas("pmap", devices=jax.devices()[:devices])
    step = replicas.map(
        make_train_step(
            run.model,
            run.optimizer,
            run.schedule,
            run.measure_statistics(),
            padding=1,
            label_smoothing=0.0,
            frozen=(),
            seed=run.config.seed,
        )
    )
    rows = list(run.batches(0))[: max(batches) + 1]
    state = replicas.place(init_state(run.model, run.optimizer, (8, 8, 1), seed=0))
    found = []
    for number in batches:
        state, metrics = step(state, replicas.shard(rows[number]))
        found.append(jax.device_get((state, metrics)))
    return found


def losses(devices=2, **options):
    """Returns the losses of three steps on one batch that change nothing but the step's number."""
    options = {"schedule.learning_rate": 0.0, "total_steps": 1, **options}
    return [float(metrics["loss"]) for _, metrics in take_steps(devices, [0, 0, 0], **options)]


def test_a_step_drops_other_units_than_the_one_before():
    assert len(set(losses(**{"model.dropout_rate": 0.0}))) == 1
    assert len(set(losses())) == 3


def test_any_number_of_devices_takes_the_same_steps():
    # There is no batch normalisation in it that would magnify the rounding of float32.
    assert_close(take_steps(1, [0, 1]), take_steps(8, [0, 1]), 1e-5)


def test_the_auxiliary_head_learns_in_training_and_is_not_evaluated(tmp_path):
    run = Run.from_config(config())
    state, statistics = run.begin()
    params = dict(state.params)
    evaluator = run.evaluator(statistics)
    whole = evaluator(run.replicas.place({"params": params}))
    del params["auxiliary"]
    assert evaluator(run.replicas.place({"params": params})) == whole

    (after, _), *_ = take_steps(2, [0])
    moved = np.abs(after.params["auxiliary"]["kernel"] - state.params["auxiliary"]["kernel"])
    assert moved.max() > 1e-4


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(tmp_path):
    whole = jax.device_get(train(config(total_steps=5), tmp_path / "whole"))
    train(config(total_steps=3), tmp_path / "interrupted")
    resumed = jax.device_get(train(config(total_steps=5), tmp_path / "interrupted"))
    assert whole.step == resumed.step == 5
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
