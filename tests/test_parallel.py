import functools
import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import multihost_utils

from resnet_jax import InputError, ResidualBlock, ResNet, parallel
from resnet_jax.parallel import AXIS, Replicas

MAPPINGS = ("pmap", "shard_map")
MODEL = ResNet(
    (1,),
    block=ResidualBlock,
    stem="cifar",
    width=4,
    num_classes=3,
    bn_group_size=2,
    bn_axis_name=AXIS,
)
RNG = np.random.default_rng(0)
BATCH = {
    "x": RNG.normal(size=(16, 6, 6, 3)).astype(np.float32),
    "y": RNG.integers(0, 3, 16).astype(np.int32),
}


@functools.cache
def initial():
    init = jax.jit(functools.partial(MODEL.init, train=False))
    return init(jax.random.key(0, impl="rbg"), BATCH["x"][:1])


def step(variables, batch):
    """One step of gradient descent; also returns the loss and the gradients."""

    def loss_of(params):
        logits, updates = MODEL.apply(
            {**variables, "params": params}, batch["x"], train=True, mutable=["batch_stats"]
        )
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["y"][:, None], axis=1)
        return -chosen.mean(), updates["batch_stats"]

    (loss, stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
    loss, stats, gradients = lax.pmean((loss, stats, gradients), AXIS)
    params = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], gradients)
    return {"params": params, "batch_stats": stats}, loss, gradients


@functools.cache
def three_steps(mapping, count=None):
    """Returns the results of the steps, and how many programs were compiled for the last two."""
    replicas = Replicas(mapping, devices=jax.devices()[:count])
    mapped = replicas.map(step, donate=True)
    state, results, compilations = replicas.place(initial()), [], 0

    def listen(event, duration_secs, **_):
        nonlocal compilations
        compilations += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for _ in range(3):
            batch = replicas.shard(jax.tree.map(lambda x: x[replicas.rows(16)], BATCH))
            compilations = 0 if len(results) == 1 else compilations
            state, loss, gradients = mapped(state, batch)
            results.append(jax.tree.map(np.array, (state, loss, gradients)))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return results, compilations


@functools.cache
def unmapped_gradients():
    def loss_of(params):
        logits, _ = MODEL.clone(bn_axis_name=None).apply(
            {**initial(), "params": params}, BATCH["x"], train=True, mutable=["batch_stats"]
        )
        return -jax.nn.log_softmax(logits)[np.arange(16), BATCH["y"]].mean()

    return jax.jit(jax.grad(loss_of))(initial()["params"])


def assert_close(actual, expected, share):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=share * np.abs(b).max()),
        actual,
        expected,
    )


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("mapping", MAPPINGS)
def test_every_row_of_the_batch_goes_to_one_replica(mapping, count):
    replicas = Replicas(mapping, devices=jax.devices()[:count])
    assert replicas.count == count
    rows = np.arange(24 * count)
    assert (rows[replicas.rows(len(rows))] == rows).all()
    sharded = replicas.shard({"row": rows})["row"]
    shards = sorted(sharded.addressable_shards, key=lambda shard: shard.device.id)
    assert [shard.device for shard in shards] == jax.devices()[:count]
    np.testing.assert_array_equal([np.ravel(shard.data) for shard in shards], rows.reshape(-1, 24))


@pytest.mark.parametrize(("size", "right"), [(20, 16), (3, 8), (0, 8), (-8, 8)])
def test_a_batch_that_does_not_divide_is_refused(size, right):
    message = f"a batch of {size} does not divide over 8 devices; take a multiple of 8, such as "
    with pytest.raises(InputError, match=f"{message}{right}$"):
        Replicas().rows(size)


def test_round_up():
    replicas = Replicas(devices=jax.devices()[:3])
    assert [replicas.round_up(size) for size in (1, 3, 4, 10)] == [3, 3, 6, 12]


def test_an_unknown_mapping_is_refused():
    message = "there is no mapping of replicas .* 'pmapp'; did you mean pmap"
    with pytest.raises(InputError, match=message):
        Replicas("pmapp")  # pyrefly: ignore


def test_repr_says_what_it_runs_on():
    assert repr(Replicas("shard_map", devices=jax.devices()[:2])) == "2 x cpu (shard_map)"


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("mapping", MAPPINGS)
def test_donating_what_was_placed_leaves_the_original_alive(mapping, count):
    replicas = Replicas(mapping, devices=jax.devices()[:count])
    originals = {"device": jnp.arange(64.0), "host": np.arange(64.0, dtype=np.float32)}
    placed = replicas.place(originals)
    double = replicas.map(lambda t, _: jax.tree.map(lambda x: 2.0 * x, t), donate=True)
    doubled = double(placed, replicas.shard(np.zeros(count, np.float32)))
    originals["host"] += 100
    assert placed["device"].is_deleted()
    np.testing.assert_array_equal(originals["device"], np.arange(64))
    for leaf in doubled.values():
        np.testing.assert_array_equal(leaf, 2 * np.arange(64))


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_a_tree_can_be_placed_from_anywhere(mapping):
    replicas = Replicas(mapping, devices=jax.devices()[:2])
    everywhere = Replicas(mapping).place(jnp.arange(3.0))
    sources = (np.arange(3.0, dtype=np.float32), jax.device_put(jnp.arange(3.0), jax.devices()[7]))
    for source in (*sources, everywhere, Replicas(mapping).as_global(everywhere)):
        placed = replicas.place(source)
        assert isinstance(placed, jax.Array)
        assert placed.sharding.device_set == set(jax.devices()[:2])
        assert placed.is_fully_replicated
        np.testing.assert_array_equal(placed, np.arange(3))


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_as_global_shares_its_memory_with_what_was_placed(mapping):
    replicas = Replicas(mapping, devices=jax.devices()[:2])
    placed = replicas.place(jnp.arange(3.0))
    spanning = replicas.as_global(placed)
    assert spanning.is_fully_replicated
    pointers = [
        [shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards]
        for array in (placed, spanning)
    ]
    assert pointers[0] == pointers[1]


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_the_step_is_compiled_once(mapping):
    assert three_steps(mapping, 4)[1] == 0


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_placing_again_compiles_nothing(mapping, caplog):
    replicas = Replicas(mapping)
    replicas.place({"a": np.zeros(3)})
    with jax.log_compiles():
        replicas.place({"a": np.ones(3)})
        assert "Compiling" not in caplog.text
        replicas.place({"b": np.ones(3)})  # the log says so where something is compiled
    assert "Compiling" in caplog.text


def test_both_mappings_agree():
    jax.tree.map(np.testing.assert_array_equal, *(three_steps(m, 4)[0] for m in MAPPINGS))


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_loss_gradients_and_statistics_are_those_of_one_device(mapping):
    """In particular, the gradients are not as many times too large as there are replicas."""
    (state, loss, gradients), *_ = three_steps(mapping, 4)[0]
    (state_1, loss_1, gradients_1), *_ = three_steps("pmap", 1)[0]
    assert_close((state, loss, gradients), (state_1, loss_1, gradients_1), 1e-5)

    assert_close(gradients, unmapped_gradients(), 1e-5)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_one_reduction_carries_gradients_statistics_and_metrics(mapping):
    options = {"xla_backend_optimization_level": "0"}
    replicas = Replicas(mapping, devices=jax.devices()[:4], compiler_options=options)
    compiled = replicas.map(step).compile(replicas.place(initial()), replicas.shard(BATCH))
    hlo = compiled.as_text()
    collectives = r"(all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)"
    assert re.findall(rf" {collectives}(?:-start)?\(", hlo) == ["all-reduce"]


def test_one_process_agrees_with_itself():
    assert parallel.is_primary()
    assert parallel.once(lambda: 7) == 7
    assert parallel.preemption_sync() is None
    error = InputError("full")
    with pytest.raises(InputError, match="full") as raised, parallel.agree_on_input():
        raise error
    assert raised.value is error


def main(port, process, folder):
    """What each of the processes does."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    parallel.initialize(f"localhost:{port}", 2, process)
    stops = parallel.preemption_sync()
    assert stops is not None
    said_of = {}
    said = {
        "primary": parallel.is_primary(),
        "agreed": parallel.once(lambda: 7 if process == 0 else 8),
        "stop": stops(0),
        "mappings": said_of,
    }
    for mapping in MAPPINGS:
        replicas = Replicas(mapping)
        results, compilations = three_steps(mapping)
        placed = replicas.place({"a": np.arange(3, dtype=np.float32)})
        spanning = replicas.as_global(placed)["a"]
        again = replicas.place({"a": spanning})["a"]
        rows = replicas.rows(16)
        said_of[mapping] = {
            "repr": repr(replicas),
            "rows": [rows.start, rows.stop],
            "compilations": compilations,
            "spanning": [len(spanning.sharding.device_set), spanning.is_fully_addressable],
            "again": [again.sharding == placed["a"].sharding, np.asarray(again).tolist()],
        }
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(results)]
        np.savez(pathlib.Path(folder, f"{mapping}{process}"), *leaves)
    pathlib.Path(folder, f"{process}.json").write_text(json.dumps(said))
    multihost_utils.sync_global_devices("done")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, str(port)]
    processes = [
        subprocess.Popen(
            [*command, str(process), str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in (0, 1)
    ]
    try:
        output = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(output)

    for process in (0, 1):
        said = json.loads((tmp_path / f"{process}.json").read_text())
        assert said.pop("primary") == (process == 0)
        assert said.pop("agreed") == 7
        assert said.pop("stop") is False
        for mapping in MAPPINGS:
            assert said["mappings"][mapping] == {
                "repr": f"4 x cpu ({mapping}) in 2 processes",
                "rows": [8 * process, 8 * process + 8],
                "compilations": 0,
                "spanning": [4, False],
                "again": [True, [0.0, 1.0, 2.0]],
            }
            expected = jax.tree.leaves(three_steps(mapping, 4)[0])
            with np.load(tmp_path / f"{mapping}{process}.npz") as actual:
                assert_close([actual[name] for name in actual.files], expected, 1e-5)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])


@pytest.mark.parametrize(("examples", "processes"), [(37, 2), (1, 3), (8, 4), (9, 4), (0, 2)])
def test_shares_of_processes_are_all_of_the_examples_in_order(monkeypatch, examples, processes):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    shares = []
    for process in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        shares.append(parallel.share(examples))
    assert [i for share in shares for i in share] == list(range(examples))
    assert max(map(len, shares)) == len(shares[0]) == -(-examples // processes)


def test_one_process_gathers_what_it_has():
    rows = np.arange(6).reshape(3, 2)
    assert parallel.gather(rows, 3) is rows
    replicas = Replicas(devices=jax.devices()[:3])
    assert replicas.here().count == 3


@pytest.mark.parametrize(
    ("message", "lost"), [("UNAVAILABLE: a peer is gone", True), ("RESOURCE_EXHAUSTED", False)]
)
def test_an_error_that_a_library_raises_from_that_of_a_collective_tells_of_a_lost_process(
    monkeypatch, message, lost
):
    error = TimeoutError("Timed out while waiting for async_commit_complete barrier.")
    error.__cause__ = jax.errors.JaxRuntimeError(message)
    assert not parallel.lost_process(error)  # alone
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert parallel.lost_process(error) == lost
    assert not parallel.lost_process(TimeoutError())


@pytest.fixture
def uncached():
    """Leaves programs out of the cache: jaxlib 0.12 cannot write some of those with oneDNN."""
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_a_mapped_program_is_compiled_with_the_options_that_this_version_has(mapping, uncached):
    """With oneDNN, for an example, which takes convolutions in bfloat16 if the processor has it."""
    options = {"xla_cpu_experimental_onednn_custom_call": True, "xla_of_another_version": True}
    replicas = Replicas(mapping, compiler_options=options)

    def step(kernel, images):
        layout = ("NHWC", "HWIO", "NHWC")
        half = lax.conv_general_dilated(
            images.astype(jnp.bfloat16),
            kernel.astype(jnp.bfloat16),
            (1, 1),
            "SAME",
            dimension_numbers=layout,
        )
        rows = images.reshape(-1, 64)
        product = lax.dot_general(rows, rows, (((0,), (0,)), ((), ())))
        return lax.pmean(half.astype(jnp.float32).sum() + product.sum(), AXIS)

    mapped, plain = replicas.map(step), Replicas(mapping).map(step)
    kernel = replicas.place(jnp.ones((3, 3, 64, 64)))
    for count in (1, 2):  # another shape of the batch is another program
        batch = replicas.shard(np.ones((count * replicas.count, 64, 64, 64), np.float32))
        np.testing.assert_allclose(mapped(kernel, batch), plain(kernel, batch), rtol=1e-2)
    assert "__onednn" not in plain.compile(kernel, batch).as_text()
    if jax.__version_info__ >= (0, 12):
        program = mapped.compile(kernel, batch).as_text()
        assert "__onednn$matmul" in program
        if {"avx512_bf16", "amx_bf16"} & set(pathlib.Path("/proc/cpuinfo").read_text().split()):
            assert "__onednn$convolution" in program
