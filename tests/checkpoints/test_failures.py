"""Killed and opened again; and what goes wrong in the background is not lost."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from resnet_jax.checkpoints import Checkpoints
from resnet_jax.checkpoints import manifest as manifests
from tests.checkpoints.trees import SMALL, assert_same, small, steps

KILLED = """
    import os, signal, sys
    import jax, jax.numpy as jnp
    from orbax.checkpoint import checkpoint_utils
    from resnet_jax.checkpoints import Checkpoints, manifest
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
    with Checkpoints(folder, keep_newest=1, keep_best=0) as saved:
        if where == "writing":  # the arrays are there, the last rename is not
            kill_when("rename", lambda path: path.endswith("30.orbax-checkpoint-tmp"))
        if where == "committed":
            manifest.write = kill
        if where == "manifest":  # its temporary file is there
            kill_when("replace", lambda path: path.endswith("manifest.json.partial"))
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
def test_killed_with_sigkill(pair, where, left, good, logged):
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), where, str(pair)],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stdout + process.stderr
    assert {path.name for path in pair.iterdir()} - {"newest.json"} == left
    with Checkpoints(pair, keep_newest=1, keep_best=0, log=logged.append) as checkpoints:
        assert set(steps(pair)) == left & {"10", "20", "30"}
        checkpoint = checkpoints.restore("newest", SMALL)
        assert checkpoint is not None
        assert_same(checkpoint.items, small(good))
        if left >= {"30"} and good == 20:
            assert logged == [
                "checkpoint 30 is unfinished (it has no manifest): set aside as "
                f"{pair}/set_aside/30-1; checkpoint 20 is used"
            ]
        else:
            assert logged == []
        checkpoints.save(good + 10, small(good + 10), {}, metric=None)
        checkpoints.wait()
        assert checkpoints.steps() == [good + 10]
    assert steps(pair) == [str(good + 10)]


@pytest.mark.parametrize("surfaces_at", ["wait", "save", "restore", "close"])
def test_a_failed_manifest_surfaces(pair, monkeypatch, surfaces_at, logged):
    def fail(*_):
        raise OSError("disk full")

    checkpoints = Checkpoints(pair, log=logged.append)
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
        checkpoints.wait()  # raised once
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
    with Checkpoints(tmp_path, writable=False) as checkpoints:
        assert checkpoints.steps() == [1]
