"""What is saved comes back; which checkpoints are kept, and which is the best."""

import functools
import json
import logging
import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from resnet_jax.checkpoints import Checkpoints, Evaluation
from resnet_jax.checkpoints import manifest as manifests
from tests.checkpoints.trees import (
    METADATA,
    SMALL,
    assert_same,
    flip,
    make_items,
    place,
    save_small,
    small,
    spread,
    steps,
    template,
)


def test_round_trip_is_bit_exact(tmp_path, logged):
    items = make_items(7)
    with Checkpoints(tmp_path / "new" / "checkpoints", log=logged.append) as checkpoints:
        assert checkpoints.restore("newest", {}) is None
        assert checkpoints.steps() == []
        checkpoints.save(7, items, METADATA, metric=None)
        checkpoints.wait()
        assert checkpoints.steps() == [7]
    device = SingleDeviceSharding(jax.devices()[3])
    with Checkpoints(tmp_path / "new" / "checkpoints", log=logged.append) as checkpoints:
        checkpoint = checkpoints.restore("newest", template(items, device))
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.metadata) == (7, METADATA)
    assert_same(checkpoint.items, items)
    assert all(leaf.sharding == device for leaf in jax.tree.leaves(checkpoint.items))
    assert logged == []


def test_leaves_without_sharding_come_as_numpy(tmp_path):
    items = make_items(7)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, items, {}, metric=None)
        checkpoint = checkpoints.restore("newest", template(items))
    assert checkpoint is not None
    assert_same(checkpoint.items, items)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(checkpoint.items))


@pytest.mark.parametrize(("saved_on", "restored_on"), [(1, 8), (8, 2)])
def test_restores_on_another_number_of_devices(tmp_path, saved_on, restored_on):
    tree = {"w": jnp.arange(48.0).reshape(16, 3)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"variables": place(tree, saved_on)}, {}, metric=None)
    with Checkpoints(tmp_path) as checkpoints:
        wanted = template(tree, spread(restored_on))
        checkpoint = checkpoints.restore("newest", {"variables": wanted})
    assert checkpoint is not None
    assert_same(checkpoint.items["variables"], tree)
    assert len(checkpoint.items["variables"]["w"].sharding.device_set) == restored_on


def test_restores_a_replicated_state_onto_fewer_devices_than_it_was_saved_from(tmp_path):
    replicated = NamedSharding(Mesh(jax.devices(), ("rows",)), PartitionSpec())
    tree = jax.device_put(make_items(1)["training"], replicated)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"training": tree}, {}, metric=None)
        checkpoint = checkpoints.restore("newest", {"training": template(tree)})
    assert checkpoint is not None
    assert_same(checkpoint.items["training"], tree)


def test_restores_only_the_items_asked_for(tmp_path):
    items = make_items(7)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, items, METADATA, metric=None)
        checkpoint = checkpoints.restore(7, {"variables": template(items["variables"])})
    assert checkpoint is not None
    assert list(checkpoint.items) == ["variables"]
    assert_same(checkpoint.items["variables"], items["variables"])
    assert checkpoint.metadata == METADATA


@pytest.fixture
def stalled(monkeypatch) -> threading.Event:
    """Until it is set, nobody but the main thread gets a folder renamed."""
    event = threading.Event()
    rename = os.rename

    def rename_later(*args, **kwargs):
        if threading.current_thread() is not threading.main_thread():
            event.wait(5)
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "rename", rename_later)
    return event


def test_the_caller_of_save_waits_for_nothing_of_orbax(tmp_path, monkeypatch):
    """Its part of a save takes several times as long as the copy."""
    save, threads = ocp.AsyncCheckpointer.save, []
    may_save = threading.Event()

    def late(*args, **kwargs):
        threads.append(threading.current_thread())
        assert may_save.wait(10)
        save(*args, **kwargs)

    monkeypatch.setattr(ocp.AsyncCheckpointer, "save", late)
    host = np.arange(5)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"host": {"x": host}}, {}, metric=None)
        host[:] = 0
        may_save.set()
        checkpoints.wait()
        assert threads != [threading.current_thread()]
        checkpoint = checkpoints.restore("newest", {"host": template({"x": host})})
    assert checkpoint is not None
    np.testing.assert_array_equal(checkpoint.items["host"]["x"], np.arange(5))


@pytest.mark.parametrize(
    ("devices", "spec"), [(1, PartitionSpec()), (8, PartitionSpec()), (8, PartitionSpec("rows"))]
)
def test_save_returns_before_it_is_done_and_lets_the_state_be_donated(
    tmp_path, stalled, spec, devices
):
    sharding = NamedSharding(Mesh(jax.devices()[:devices], ("rows",)), spec)
    state = {"w": jax.random.normal(jax.random.key(0), (64, 1024))}
    state, host = jax.device_put(state, sharding), np.arange(5)
    expected = {"state": jax.tree.map(jnp.copy, state), "host": {"x": host.copy()}}

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):
        return {"w": state["w"] * 2 + 1}

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"state": state, "host": {"x": host}}, {}, metric=None)
        assert checkpoints.steps() == []
        first = state["w"]
        for _ in range(4):
            state = step(state)
        jax.block_until_ready(state)
        host[:] = -1
        if spec == PartitionSpec():
            assert first.is_deleted()
        assert checkpoints.steps() == []
        stalled.set()
        checkpoint = checkpoints.restore("newest", template(expected))
    assert checkpoint is not None
    assert_same(checkpoint.items, expected)


def test_metadata_are_those_of_the_moment_of_saving(tmp_path):
    metadata = {"seen": [1, (2, 3)]}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, small(1), metadata, metric=None)
        metadata["seen"].append(4)
        checkpoint = checkpoints.restore("newest", {})
    assert checkpoint is not None
    assert checkpoint.metadata == {"seen": [1, [2, 3]]}


def test_nothing_is_printed_or_logged(tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    filters = list(logging.getLogger("absl").filters)
    save_small(tmp_path, {1: 1.0, 2: None, 3: 0.5, 4: 2.0, 5: 3.0})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.restore("best", SMALL)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if "orbax" in record.pathname]
    assert logging.getLogger("absl").filters == filters


def test_keeps_the_newest_and_the_best(tmp_path, logged):
    metrics = {1: 3.0, 2: 0.5, 3: 2.0, 4: None, 5: 1.0, 6: None, 7: float("nan")}
    save_small(tmp_path, metrics, keep_newest=2, keep_best=2)
    assert steps(tmp_path) == ["2", "5", "6", "7"]
    assert json.loads((tmp_path / "newest.json").read_text()) == {"step": 7}
    with Checkpoints(tmp_path, log=logged.append) as checkpoints:
        assert checkpoints.steps() == [2, 5, 6, 7]
        best, newest = checkpoints.restore("best", SMALL), checkpoints.restore("newest", SMALL)
    assert best is not None
    assert newest is not None
    assert_same(best.items, small(2))
    assert_same(newest.items, small(7))
    assert logged == []


def test_the_best_is_known_once_it_is_marked_and_a_mark_ends_with_its_checkpoint(tmp_path, logged):
    with Checkpoints(tmp_path, keep_newest=1, log=logged.append) as checkpoints:
        for step, metric in {1: 2.0, 2: 1.0, 3: 3.0}.items():
            checkpoints.save(step, small(step), {}, metric=None)
            checkpoints.wait()
            assert steps(tmp_path) == sorted({"1" if step < 3 else "2", str(step)})
            checkpoints.mark(step, Evaluation(metric, {"scale": 0.5}))
        best = checkpoints.restore("best", SMALL)
    assert best is not None
    assert (best.step, best.evaluation) == (2, Evaluation(1.0, {"scale": 0.5}))
    marks = sorted(path.name for path in tmp_path.glob("metric-*"))
    assert marks == ["metric-2.json", "metric-3.json"]
    path = tmp_path / "metric-2.json"
    content = path.read_bytes()
    for position in range(len(content)):
        flip(path, position)
        with Checkpoints(tmp_path, log=logged.append) as checkpoints:
            found = checkpoints.restore(2, {})
            assert found is not None
            assert found.evaluation is None
        path.write_bytes(content)
    line = "the evaluation of checkpoint 2 is damaged (metric-2.json is not what was written)"
    assert logged == [f"{line}; it counts as missing"] * len(content)


def test_the_best_of_equals_is_the_newest_and_without_metric_there_is_none(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, small(1), {}, metric=None)
        assert checkpoints.restore("best", SMALL) is None
        checkpoints.save(2, small(2), {}, metric=1.0)
        checkpoints.save(3, small(3), {}, metric=1.0)
        best = checkpoints.restore("best", SMALL)
    assert best is not None
    assert best.step == 3


def test_the_last_good_one_stays_until_the_next_has_its_manifest(tmp_path, monkeypatch):
    seen = []
    write = manifests.write

    def look_and_write(folder, *contents):
        seen.append(steps(folder.parent))
        write(folder, *contents)

    monkeypatch.setattr(manifests, "write", look_and_write)
    save_small(tmp_path, {1: None, 2: None, 3: None}, keep_newest=1, keep_best=0)
    assert seen == [["1"], ["1", "2"], ["2", "3"]]
    assert steps(tmp_path) == ["3"]
