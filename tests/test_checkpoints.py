"""Checkpoints come back bit for bit, or not at all and said so, whatever happens to their files."""

import functools
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from resnet_jax import manifest as manifests
from resnet_jax.checkpoints import Checkpoints
from resnet_jax.errors import InputError

METADATA = {"config": {"seed": 3, "name": "résnet"}, "rates": [0.1, 1e-3], "none": None}


class Moments(NamedTuple):
    mean: Any
    scale: Any


def make_items(step: int) -> dict[str, Any]:
    numbers = np.random.default_rng(step)
    params = {
        "conv": {"kernel": jnp.asarray(numbers.normal(size=(3, 3, 8, 16)), jnp.float32)},
        "head": {"bias": jnp.asarray(numbers.normal(size=16), jnp.bfloat16)},
        "none": {},
    }
    optimizer = optax.chain(optax.trace(0.9), optax.identity())
    return {
        "variables": {"params": params, "batch_stats": {}},
        "training": {
            "step": jnp.int32(step),
            "opt_state": optimizer.init(params),
            "key": jax.random.key(step),
            "keys": jax.random.wrap_key_data(
                jnp.asarray(numbers.integers(1 << 32, size=(3, 4)), jnp.uint32), impl="rbg"
            ),
        },
        "measured": Moments(np.arange(6, dtype=np.uint8).reshape(2, 3), np.float32(0.5)),
        "empty": {},
    }


def template(tree: Any, sharding: jax.sharding.Sharding | None = None) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype, sharding=sharding), tree
    )


def place(tree: Any, devices: int) -> Any:
    return jax.tree.map(lambda x: jax.device_put(x, spread(devices)), tree)


def spread(devices: int) -> NamedSharding:
    """Rows over devices."""
    return NamedSharding(Mesh(jax.devices()[:devices], ("rows",)), PartitionSpec("rows"))


def assert_same(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def listing(folder: Path) -> list[tuple[str, int, int]]:
    paths = sorted(folder.rglob("*"))
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def small(step: int) -> dict[str, Any]:
    return {"variables": {"w": jnp.full((4,), step, jnp.float32)}}


SMALL = template(small(0))


def save_small(folder: Path, metrics: dict[int, float | None], **options: Any) -> None:
    with Checkpoints(folder, **options) as checkpoints:
        for step, metric in metrics.items():
            checkpoints.save(step, small(step), {}, metric=metric)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints 10 and 20, to be copied."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    save_small(folder, {10: 2.0, 20: 1.0})
    return folder


@pytest.fixture
def pair(two: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two, tmp_path / "checkpoints"))


# What is saved comes back.


def test_round_trip_is_bit_exact(tmp_path, said):
    items = make_items(7)
    with Checkpoints(tmp_path / "new" / "checkpoints", say=said.append) as checkpoints:
        assert checkpoints.restore("newest", {}) is None
        assert checkpoints.steps() == []
        checkpoints.save(7, items, METADATA, metric=None)
        checkpoints.wait()
        assert checkpoints.steps() == [7]
    device = SingleDeviceSharding(jax.devices()[3])
    with Checkpoints(tmp_path / "new" / "checkpoints", say=said.append) as checkpoints:
        checkpoint = checkpoints.restore("newest", template(items, device))
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.metadata) == (7, METADATA)
    assert_same(checkpoint.items, items)
    assert all(leaf.sharding == device for leaf in jax.tree.leaves(checkpoint.items))
    assert said == []


def test_leaves_without_sharding_come_as_numpy_and_keys_as_keys(tmp_path):
    items = make_items(7)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, items, {}, metric=None)
        checkpoint = checkpoints.restore("newest", template(items))
    assert checkpoint is not None
    assert_same(checkpoint.items, items)
    for leaf in jax.tree.leaves(checkpoint.items):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        assert isinstance(leaf, jax.Array if is_key else np.ndarray)


@pytest.mark.parametrize(("saved_on", "restored_on"), [(1, 8), (8, 1), (8, 2), (2, 8)])
def test_restores_on_another_number_of_devices(tmp_path, saved_on, restored_on):
    tree = {"w": jnp.arange(48.0).reshape(16, 3), "key": jax.random.split(jax.random.key(1), 8)}
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
    """Until it is set, nobody but the main thread gets a folder made."""
    event = threading.Event()
    make = os.mkdir

    def make_later(*args, **kwargs):
        if threading.current_thread() is not threading.main_thread():
            event.wait(5)
        make(*args, **kwargs)

    monkeypatch.setattr(os, "mkdir", make_later)
    return event


@pytest.mark.parametrize("spec", [PartitionSpec(), PartitionSpec("rows")])
@pytest.mark.parametrize("devices", [1, 8])
def test_save_returns_before_it_is_done_and_lets_the_state_be_donated(
    tmp_path, stalled, spec, devices
):
    sharding = NamedSharding(Mesh(jax.devices()[:devices], ("rows",)), spec)
    state = {"w": jax.random.normal(jax.random.key(0), (64, 1024)), "keys": jax.random.key(1)}
    state["keys"] = jax.random.split(state["keys"], 8)
    state, host = jax.device_put(state, sharding), np.arange(5)
    expected = {"state": jax.tree.map(jnp.copy, state), "host": {"x": host.copy()}}

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):
        return {"w": state["w"] * 2 + 1, "keys": jax.vmap(jax.random.fold_in)(state["keys"], ones)}

    ones = jnp.ones(8, jnp.uint32)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"state": state, "host": {"x": host}}, {}, metric=None)
        assert list(tmp_path.iterdir()) == []
        first = state["w"]
        for _ in range(4):
            state = step(state)
        jax.block_until_ready(state)
        host[:] = -1
        if spec == PartitionSpec():
            assert first.is_deleted()
        assert list(tmp_path.iterdir()) == []
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
    save_small(tmp_path, {1: 1.0, 2: None, 3: 0.5, 4: 2.0, 5: 3.0})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.restore("best", SMALL)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if "orbax" in record.pathname]
    assert not logging.getLogger("absl").filters


# Which are kept, and which is the best.


def test_keeps_the_newest_and_the_best(tmp_path, said):
    metrics = {1: 3.0, 2: 0.5, 3: 2.0, 4: None, 5: 1.0, 6: None, 7: float("nan")}
    save_small(tmp_path, metrics, keep_newest=2, keep_best=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "5", "6", "7"]
    with Checkpoints(tmp_path, say=said.append) as checkpoints:
        assert checkpoints.steps() == [2, 5, 6, 7]
        best, newest = checkpoints.restore("best", SMALL), checkpoints.restore("newest", SMALL)
    assert best is not None
    assert newest is not None
    assert_same(best.items, small(2))
    assert_same(newest.items, small(7))
    assert said == []


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

    def look_and_write(folder, manifest):
        seen.append(sorted(path.name for path in Path(folder).parent.iterdir()))
        write(folder, manifest)

    monkeypatch.setattr(manifests, "write", look_and_write)
    save_small(tmp_path, {1: None, 2: None, 3: None}, keep_newest=1, keep_best=0)
    assert seen == [["1"], ["1", "2"], ["2", "3"]]
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


# What is damaged is noticed, and the one before is used.


def assert_falls_back(folder: Path, reason: str, *, which: Any = "newest") -> None:
    said: list[str] = []
    with Checkpoints(folder, say=said.append) as checkpoints:
        checkpoint = checkpoints.restore(which, SMALL)
        assert checkpoint is not None
        assert_same(checkpoint.items, small(10))
        assert said == [
            f"checkpoint 20 {reason}: set aside as {folder}/set_aside/20-1; checkpoint 10 is used"
        ]
        assert checkpoints.steps() == [10]
        assert (folder / "set_aside" / "20-1").is_dir()


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def test_a_flipped_byte_in_any_file_is_noticed(two, tmp_path):
    names = [path.relative_to(two) for path in files(two / "20")]
    assert len(names) > 10
    for number, name in enumerate(names):
        folder = Path(shutil.copytree(two, tmp_path / str(number)))
        path = folder / name
        flip(path, number % path.stat().st_size)
        what = "its manifest" if path.name == "manifest.json" else path.relative_to(folder / "20")
        assert_falls_back(folder, f"is damaged ({what} is not what was written)")


def test_a_truncated_file_is_noticed(pair):
    path = pair / "20" / "variables" / "_METADATA"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-3])
    assert_falls_back(
        pair, f"is damaged (variables/_METADATA has {size - 3} bytes, {size} were written)"
    )


def test_a_removed_file_is_noticed(pair):
    (pair / "20" / "commit_success.txt").unlink()
    assert_falls_back(pair, "is damaged (commit_success.txt is missing)")


def test_an_added_file_is_noticed(pair):
    (pair / "20" / "variables" / "d" / "more").write_text("")
    assert_falls_back(pair, "is damaged (variables/d/more is not one of its files)")


def test_a_missing_manifest_is_noticed(pair):
    (pair / "20" / "manifest.json").unlink()
    assert_falls_back(pair, "is unfinished (it has no manifest)", which="best")


def test_the_manifest_of_another_step_is_noticed(pair):
    shutil.rmtree(pair / "20")
    shutil.copytree(pair / "10", pair / "20")
    assert_falls_back(pair, "is damaged (its manifest is that of checkpoint 10)")


def test_a_damaged_best_gives_way_to_the_next_best(pair):
    flip(pair / "20" / "_CHECKPOINT_METADATA", 0)
    assert_falls_back(
        pair, "is damaged (_CHECKPOINT_METADATA is not what was written)", which="best"
    )


def test_several_flaws_are_said_in_one_line(pair, said):
    (pair / "20" / "manifest.json").unlink()
    flip(pair / "10" / "variables" / "_METADATA", 5)
    with Checkpoints(pair, say=said.append) as checkpoints:
        assert checkpoints.restore("newest", SMALL) is None
    assert said == [
        f"checkpoint 20 is unfinished (it has no manifest): set aside as {pair}/set_aside/20-1; "
        "checkpoint 10 is damaged (variables/_METADATA is not what was written): set aside as "
        f"{pair}/set_aside/10-1; there is no good one"
    ]


def test_a_step_set_aside_is_saved_again_and_set_aside_again(pair, said):
    with Checkpoints(pair, say=said.append) as checkpoints:
        for n in (1, 2):
            flip(pair / "20" / "manifest.json", 3)
            checkpoint = checkpoints.restore("newest", SMALL)
            assert checkpoint is not None
            assert checkpoint.step == 10
            assert (pair / "set_aside" / f"20-{n}").is_dir()
            checkpoints.save(20, small(20), {}, metric=None)
            checkpoints.wait()
            assert checkpoints.steps() == [10, 20]
    assert len(said) == 2


def test_an_unfinished_one_makes_room_for_its_step(pair, said):
    (pair / "20" / "manifest.json").unlink()
    with Checkpoints(pair, say=said.append) as checkpoints:
        checkpoints.save(20, small(20), {}, metric=None)
        checkpoints.wait()
        assert checkpoints.steps() == [10, 20]
    assert said == [
        f"checkpoint 20 is unfinished (it has no manifest): set aside as {pair}/set_aside/20-1; "
        "it is saved anew"
    ]


def test_a_damaged_one_is_not_deleted_to_keep_the_newest(pair):
    flip(pair / "10" / "manifest.json", 3)
    save_small(pair, {30: None, 40: None}, keep_newest=1, keep_best=0)
    assert sorted(path.name for path in pair.iterdir()) == ["10", "40"]


def test_read_only_changes_nothing(pair, said):
    flip(pair / "20" / "variables" / "_METADATA", 5)
    (pair / "30.orbax-checkpoint-tmp").mkdir()
    (pair / "removing").mkdir()
    shutil.copytree(pair / "10", pair / "30")
    (pair / "30" / "manifest.json").unlink()
    before = listing(pair)
    with Checkpoints(pair, writable=False, say=said.append) as checkpoints:
        checkpoint = checkpoints.restore("newest", SMALL)
        assert checkpoint is not None
        assert checkpoint.step == 10
    assert listing(pair) == before
    assert said == [
        "checkpoint 30 is unfinished (it has no manifest): skipped; checkpoint 20 is damaged "
        "(variables/_METADATA is not what was written): skipped; checkpoint 10 is used"
    ]


def test_read_only_makes_no_folder(tmp_path):
    with Checkpoints(tmp_path / "none", writable=False) as checkpoints:
        assert checkpoints.restore("newest", SMALL) is None
        assert checkpoints.steps() == []
    assert not (tmp_path / "none").exists()


def test_one_deleted_while_others_are_looked_at_is_no_flaw(pair, monkeypatch, said):
    survey = manifests.survey

    def survey_then_delete(directory):
        (pair / "10" / "manifest.json").unlink()
        found = survey(directory)
        shutil.rmtree(pair / "10")
        return found

    monkeypatch.setattr(manifests, "survey", survey_then_delete)
    with Checkpoints(pair, writable=False, say=said.append) as checkpoints:
        checkpoint = checkpoints.restore("newest", SMALL)
    assert checkpoint is not None
    assert checkpoint.step == 20
    assert said == []


def test_one_deleted_while_it_is_read_is_told_from_a_damaged_one(pair, monkeypatch):
    verify = manifests.verify
    monkeypatch.setattr(
        manifests, "verify", lambda folder, step: (verify(folder, step), shutil.rmtree(folder))
    )
    with (
        Checkpoints(pair, writable=False) as checkpoints,
        pytest.raises(InputError, match="checkpoint 10 was deleted while it was being read"),
    ):
        checkpoints.restore(10, SMALL)


# Killed, and opened again.

KILLED = """
    import os, signal, sys
    import jax, jax.numpy as jnp
    from orbax.checkpoint import checkpoint_utils
    from resnet_jax import checkpoints, manifest
    from etils.epath import gpath

    def kill(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def kill_when(name, condition):
        original = getattr(os, name)
        def replaced(path, *args, **kwargs):
            if condition(os.fspath(path)):
                kill()
            return original(path, *args, **kwargs)
        setattr(os, name, replaced)

    where, folder = sys.argv[1:]
    with checkpoints.Checkpoints(folder, keep_newest=1, keep_best=0) as saved:
        if where == "writing":  # the arrays are there, the last rename is not
            kill_when("rename", lambda path: path.endswith("30.orbax-checkpoint-tmp"))
        if where == "committed":
            manifest.write = kill
        if where == "manifest":  # its temporary file is there
            kill_when("replace", lambda path: path.endswith("manifest.json.tmp"))
        if where == "deleting":
            kill_when("rmdir", lambda path: "removing" in str(path))
        saved.save(30, {"variables": {"w": jnp.full((4,), 30, jnp.float32)}}, {}, metric=None)
        saved.wait()
    print("survived")
"""


@pytest.mark.parametrize(
    ("where", "left", "good"),
    [
        ("writing", {"10", "20", "30.orbax-checkpoint-tmp"}, 20),
        ("committed", {"10", "20", "30"}, 20),
        ("manifest", {"10", "20", "30"}, 20),
        ("deleting", {"20", "30", "removing"}, 30),
    ],
)
def test_killed_with_sigkill(pair, where, left, good, said):
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), where, str(pair)],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stdout + process.stderr
    assert {path.name for path in pair.iterdir()} == left
    with Checkpoints(pair, keep_newest=1, keep_best=0, say=said.append) as checkpoints:
        assert {path.name for path in pair.iterdir()} == left & {"10", "20", "30"}
        checkpoint = checkpoints.restore("newest", SMALL)
        assert checkpoint is not None
        assert_same(checkpoint.items, small(good))
        if left >= {"30"} and good == 20:
            assert said == [
                "checkpoint 30 is unfinished (it has no manifest): set aside as "
                f"{pair}/set_aside/30-1; checkpoint 20 is used"
            ]
        else:
            assert said == []
        checkpoints.save(good + 10, small(good + 10), {}, metric=None)
        checkpoints.wait()
        assert checkpoints.steps() == [good + 10]
    assert {path.name for path in pair.iterdir()} - {"set_aside"} == {str(good + 10)}


# What goes wrong in the background is not lost.


@pytest.mark.parametrize("surfaces_at", ["wait", "save", "restore", "close"])
def test_a_failed_manifest_surfaces(pair, monkeypatch, surfaces_at, said):
    def fail(*_):
        raise OSError("disk full")

    checkpoints = Checkpoints(pair, say=said.append)
    surface = {
        "wait": checkpoints.wait,
        "save": lambda: checkpoints.save(40, small(40), {}, metric=None),
        "restore": lambda: checkpoints.restore("newest", SMALL),
        "close": checkpoints.close,
    }[surfaces_at]
    with monkeypatch.context() as broken:
        broken.setattr(manifests, "write", fail)
        checkpoints.save(30, small(30), {}, metric=0.0)
        with pytest.raises(OSError, match="disk full"):
            surface()
    if surfaces_at != "close":
        checkpoints.wait()  # said once
        checkpoint = checkpoints.restore("newest", SMALL)
        assert checkpoint is not None
        assert checkpoint.step == 20
    checkpoints.close()


def test_a_failure_of_orbax_surfaces_and_the_next_save_works(pair, monkeypatch, capfd):
    def fail(*_, **__):
        raise OSError("disk full")

    with Checkpoints(pair) as checkpoints:
        with monkeypatch.context() as broken:
            broken.setattr(os, "rename", fail)
            checkpoints.save(30, small(30), {}, metric=None)
            with pytest.raises(OSError, match="disk full"):
                checkpoints.wait()
        assert checkpoints.steps() == [10, 20]
        checkpoints.save(30, small(30), {}, metric=None)
        checkpoints.wait()
        assert checkpoints.steps() == [10, 20, 30]
    assert capfd.readouterr() == ("", "")


def test_an_error_in_the_body_does_not_lose_the_save(tmp_path):
    def fail():
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, small(1), {}, metric=None)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert Checkpoints(tmp_path, writable=False).steps() == [1]


# Several processes: the primary one chooses.


def test_the_other_processes_take_the_step_of_the_primary_one(pair):
    flip(pair / "20" / "_CHECKPOINT_METADATA", 0)
    told: list[int] = []
    with Checkpoints(
        pair, writable=False, say=lambda _: None, agree=lambda x: (told.append(x), x)[1]
    ) as primary:
        primary.restore("newest", SMALL)
        with pytest.raises(InputError):
            primary.restore(20, SMALL)
        with pytest.raises(InputError):
            primary.restore(15, SMALL)
    assert told == [10, -2, -2]
    before = listing(pair)
    with Checkpoints(pair, primary=False, agree=lambda _: told.pop(0)) as other:
        checkpoint = other.restore("newest", SMALL)
        assert checkpoint is not None
        assert_same(checkpoint.items, small(10))
        with pytest.raises(InputError, match="checkpoint 20 was refused; the primary process"):
            other.restore(20, SMALL)
        told[:] = [-1]
        assert other.restore("newest", SMALL) is None
    assert listing(pair) == before


PROCESS = """
    import sys
    import jax, jax.numpy as jnp, numpy as np
    from pathlib import Path
    from jax.experimental import multihost_utils
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from resnet_jax.checkpoints import Checkpoints

    port, index, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"localhost:{port}", 2, index)
    mesh = Mesh(jax.devices(), ("rows",))
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("rows"))

    def agree(number):
        return int(multihost_utils.broadcast_one_to_all(np.int32(number)))

    def make(step):
        host = {"w": np.arange(8.0, dtype=np.float32) * step, "s": np.float32(step)}
        put = lambda x, s: jax.make_array_from_callback(x.shape, s, lambda at: np.asarray(x)[at])
        key = jax.jit(lambda: jax.random.key(step), out_shardings=whole)()
        return {"w": put(host["w"], whole), "split": put(host["w"], split),
                "s": put(host["s"], whole), "key": key, "local": host["w"]}

    with Checkpoints(folder, primary=index == 0, agree=agree, keep_newest=2, keep_best=0,
                     say=lambda line: print(line, flush=True)) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"v": make(step)}, {}, metric=None)
        checkpoints.wait()
        multihost_utils.sync_global_devices("saved")
        assert checkpoints.steps() == [2, 3], checkpoints.steps()
        if index == 0:
            path = Path(folder, "3", "v", "_METADATA")
            path.write_bytes(path.read_bytes()[1:])
        wanted = make(2)
        template = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)),
            wanted)
        checkpoint = checkpoints.restore("newest", {"v": template})
        assert checkpoint.step == 2
        for a, b in zip(jax.tree.leaves(checkpoint.items["v"]), jax.tree.leaves(wanted)):
            if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
                a, b = jax.random.key_data(a), jax.random.key_data(b)
            if isinstance(a, jax.Array):
                assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
                a, b = a.addressable_data(1), b.addressable_data(1)
            np.testing.assert_array_equal(a, b)
        checkpoints.save(3, {"v": make(3)}, {}, metric=None)
"""


@pytest.mark.slow
def test_two_processes_save_and_restore_the_same(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROCESS), str(port), str(index), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert "checkpoint 3 is damaged (v/_METADATA has" in outputs[0]
    assert "checkpoint" not in outputs[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3", "set_aside"]


# What is refused, and in which words.


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"variables": {"w": jax.ShapeDtypeStruct((5,), jnp.float32)}},
            "variables/w is float32[4] in it, float32[5] here",
        ),
        (
            {"variables": {"w": jax.ShapeDtypeStruct((4,), jnp.bfloat16)}},
            "variables/w is float32[4] in it, bfloat16[4] here",
        ),
        (
            {"variables": {"v": jax.ShapeDtypeStruct((4,), jnp.float32)}},
            "variables/w is float32[4] in it, absent here",
        ),
        ({"variables": {}}, "variables/w is float32[4] in it, absent here"),
        (
            {"variables": {**SMALL["variables"], "x": {}}},
            "variables/x is absent in it, empty here",
        ),
    ],
)
def test_a_template_that_differs_is_refused(pair, wanted, message):
    with Checkpoints(pair) as checkpoints, pytest.raises(InputError) as error:
        checkpoints.restore("newest", wanted)
    assert str(error.value) == f"checkpoint 20 does not fit: {message}"


def test_what_jax_would_cast_is_refused(tmp_path):
    wide = {"variables": {"n": np.arange(3, dtype=np.int64)}}
    device = SingleDeviceSharding(jax.devices()[0])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, wide, {}, metric=None)
        with pytest.raises(InputError, match=r"variables/n is int64\[3\] in it, int32\[3\] here"):
            checkpoints.restore("newest", template(wide, device))
        checkpoint = checkpoints.restore("newest", template(wide))
    assert checkpoint is not None
    assert_same(checkpoint.items, wide)


def test_an_unknown_item_is_refused(pair):
    with (
        Checkpoints(pair) as checkpoints,
        pytest.raises(InputError, match="no item of checkpoint 20 'variable'; did you mean variab"),
    ):
        checkpoints.restore("newest", {"variable": SMALL["variables"]})


@pytest.mark.parametrize("writable", [True, False])
def test_a_step_that_is_missing_or_damaged_is_refused(pair, writable):
    before = listing(pair)
    with Checkpoints(pair, writable=writable) as checkpoints:
        with pytest.raises(InputError) as missing:
            checkpoints.restore(15, SMALL)
        flip(pair / "20" / "commit_success.txt", 0)
        with pytest.raises(InputError) as damaged:
            checkpoints.restore(20, SMALL)
        shutil.rmtree(pair / "10")
        with pytest.raises(InputError) as alone:
            checkpoints.restore(20, SMALL)
    flaw = f"checkpoint 20 is damaged (commit_success.txt is not what was written) in {pair}"
    assert str(missing.value) == f"no checkpoint 15 in {pair}; there is 10, 20"
    assert str(damaged.value) == f"{flaw}; there is 10"
    assert str(alone.value) == f"{flaw}; there is none"
    assert {entry[0] for entry in listing(pair)} <= {entry[0] for entry in before}


@pytest.mark.parametrize("step", [15, 20])
def test_a_step_not_after_the_newest_is_refused(pair, step):
    with (
        Checkpoints(pair) as checkpoints,
        pytest.raises(InputError, match=f"step {step} cannot be saved: {pair} has checkpoint 20"),
    ):
        checkpoints.save(step, small(step), {}, metric=None)


def test_what_cannot_be_saved_is_refused(tmp_path):
    no_json: Any = {"w": jnp.ones(1)}
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(TypeError, match="variables/lr is a float and only arrays can be saved"):
            checkpoints.save(1, {"variables": {"lr": 0.1}}, {}, metric=None)
        with pytest.raises(TypeError, match="not JSON serializable"):
            checkpoints.save(1, small(1), no_json, metric=None)
        with pytest.raises(ValueError, match="an item cannot be called 'metadata'"):
            checkpoints.save(1, {"metadata": {}}, {}, metric=None)
    assert list(tmp_path.iterdir()) == []


def test_saving_read_only_is_refused(pair):
    with (
        Checkpoints(pair, writable=False) as checkpoints,
        pytest.raises(ValueError, match="were opened read only"),
    ):
        checkpoints.save(30, small(30), {}, metric=None)


@pytest.mark.parametrize(("newest", "best"), [(0, 1), (1, -1)])
def test_keeping_too_few_is_refused(tmp_path, newest, best):
    with pytest.raises(
        InputError, match=f"at least 1 and keep_best at least 0, not {newest} and {best}"
    ):
        Checkpoints(tmp_path, keep_newest=newest, keep_best=best)
