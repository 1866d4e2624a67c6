"""Several processes: the primary one chooses."""

import json
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from resnet_jax import parallel
from resnet_jax.checkpoints import Checkpoints
from resnet_jax.checkpoints import manifest as manifests
from tests.checkpoints.trees import SMALL, flip, listing, steps


def test_the_other_processes_take_what_the_primary_one_has_read(pair, monkeypatch):
    flip(pair / "20" / "_CHECKPOINT_METADATA", 0)
    said, sent = [], []
    monkeypatch.setattr(parallel, "once", lambda make: (said.append(make()), said[-1])[1])
    monkeypatch.setattr(parallel, "broadcast", lambda tree, _: (sent.append(tree), tree)[1])
    with Checkpoints(pair, writable=False, log=lambda _: None) as primary:
        read = primary.restore("newest", SMALL)
    assert read is not None
    assert read.step == 10
    before = listing(pair)
    monkeypatch.setattr(parallel, "once", lambda _: json.loads(json.dumps(said.pop(0))))
    monkeypatch.setattr(parallel, "broadcast", lambda tree, shapes: sent.pop(0))
    monkeypatch.setattr(parallel, "is_primary", lambda: False)
    monkeypatch.setattr(manifests, "names", forbidden)
    monkeypatch.setattr(manifests, "read", forbidden)
    with Checkpoints(pair) as other:
        assert other.restore("newest", SMALL) == read
        said.append(None)
        assert other.restore("newest", SMALL) is None
    monkeypatch.undo()
    assert listing(pair) == before


def forbidden(*_):
    raise AssertionError("another process than the primary one reads")


PROCESS = """
    import sys
    import jax, jax.numpy as jnp, numpy as np
    from pathlib import Path
    from jax.experimental import multihost_utils
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from resnet_jax.checkpoints import Checkpoints
    from resnet_jax.errors import InputError

    port, index, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"localhost:{port}", 2, index)
    mesh = Mesh(jax.devices(), ("rows",))
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("rows"))

    def make(step):
        host = {"w": np.arange(8.0, dtype=np.float32) * step, "s": np.float32(step)}
        put = lambda x, s: jax.make_array_from_callback(x.shape, s, lambda at: np.asarray(x)[at])
        return {"w": put(host["w"], whole), "split": put(host["w"], split),
                "s": put(host["s"], whole), "local": host["w"]}

    with Checkpoints(folder, keep_newest=2, keep_best=0,
                     log=lambda line: print(line, flush=True)) as checkpoints:
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
        try:
            checkpoints.restore(3, {"v": template})
        except InputError as error:
            assert error.on_all_processes
            assert str(error).startswith("no checkpoint 3 in "), error
            assert str(error).endswith("(process 0)") == (index == 1), error
        else:
            raise AssertionError("checkpoint 3 was set aside")
        for a, b in zip(jax.tree.leaves(checkpoint.items["v"]), jax.tree.leaves(wanted)):
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
            cwd=Path(__file__).parents[2],
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert "checkpoint 3 is damaged (v/_METADATA is" in outputs[0]
    assert "checkpoint" not in outputs[1]
    assert steps(tmp_path) == ["2", "3"]
    assert [path.name for path in (tmp_path / "set_aside").iterdir()] == ["3-1"]
