"""Killed and opened again; and what goes wrong in the background is not lost."""

import errno
import os
import signal
import threading
import time
from pathlib import Path

import jax
import pytest

from resnet_jax.checkpoints import Checkpoints
from resnet_jax.checkpoints import manifest as manifests
from tests.checkpoints.trees import SMALL, assert_same, save_small, small, steps
from tests.faults import Fault, die_before
from tests.launcher import fork

# orbax renames the folder once its arrays are there; the manifest is written after it.
KILLS = {
    "writing": Fault("os:rename", "*30.orbax-checkpoint-tmp|*", die_before),
    "committed": Fault("resnet_jax.checkpoints.manifest:write", "*", die_before),
    "manifest": Fault("os:replace", "*|*/manifest.json", die_before),
    "newest": Fault("os:replace", "*|*/newest.json", die_before),
    "deleting": Fault("os:rmdir", "*removing*", die_before),
}


def save_and_die(where: str, folder: Path) -> None:
    jax.config.update("jax_platforms", "cpu")
    KILLS[where].inject()
    save_small(folder, {30: None}, keep_newest=1, keep_best=0)


@pytest.mark.parametrize(
    ("where", "left", "good"),
    [
        ("writing", {"10", "20", "30.orbax-checkpoint-tmp"}, 20),
        ("committed", {"10", "20", "30"}, 20),
        ("manifest", {"10", "20", "30"}, 20),
        ("newest", {"10", "20", "30"}, 30),
        ("deleting", {"20", "30", "removing"}, 30),
    ],
)
def test_killed_with_sigkill(pair, where, left, good, logged):
    process = fork(save_and_die, where, pair)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert {path.name for path in pair.iterdir() if "newest" not in path.name} == left
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


@pytest.mark.parametrize("surfaces_at", ["wait", "check", "save", "restore", "close"])
def test_a_failed_manifest_surfaces(pair, monkeypatch, surfaces_at, logged):
    may_fail = threading.Event()

    def fail(*_):
        may_fail.wait()
        raise OSError("disk full")

    checkpoints = Checkpoints(pair, log=logged.append)

    def check():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            checkpoints.check()

    surface = {
        "wait": checkpoints.wait,
        "check": check,
        "save": lambda: checkpoints.save(40, small(40), {}, metric=None),
        "restore": lambda: checkpoints.restore("newest", SMALL),
        "close": checkpoints.close,
    }[surfaces_at]
    with monkeypatch.context() as broken:
        broken.setattr(manifests, "write", fail)
        checkpoints.save(30, small(30), {}, metric=0.0)
        checkpoints.check()  # does not wait
        may_fail.set()
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


def test_a_disk_that_becomes_read_only_is_named(pair, monkeypatch, capfd):
    def fail(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as broken, Checkpoints(pair) as checkpoints:
        broken.setattr(os, "rename", fail)
        checkpoints.save(30, small(30), {}, metric=None)
        with pytest.raises(OSError, match="Read-only file system") as raised:
            checkpoints.wait()
    assert raised.value.filename == os.fspath(pair)
    assert checkpoints.steps() == [10, 20]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("target", ["rename", "rmdir"])
def test_one_that_cannot_be_deleted_costs_a_line(pair, monkeypatch, target, logged):
    original = getattr(os, target)

    def fail(path, *args, **kwargs):
        if "removing" in f"{path} {args}" or Path(path).name == "10-1":
            raise OSError(errno.EBUSY, "Device or resource busy")
        return original(path, *args, **kwargs)

    with Checkpoints(pair, keep_newest=1, keep_best=0, log=logged.append) as checkpoints:
        with monkeypatch.context() as broken:
            broken.setattr(os, target, fail)
            checkpoints.save(30, small(30), {}, metric=None)
            checkpoints.wait()
        assert checkpoints.steps()[-1] == 30
        assert f"{pair}/10 cannot be deleted (Device or resource busy); the run goes on" in logged
    with Checkpoints(pair, keep_newest=1, keep_best=0, log=logged.append) as checkpoints:
        checkpoints.save(40, small(40), {}, metric=None)
    assert {path.name for path in pair.iterdir()} == {"40", "newest.json"}
    assert len(logged) == 2


def test_what_a_killed_process_left_and_cannot_be_deleted_costs_a_line(pair, monkeypatch, logged):
    def fail(*_, **__):
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    (pair / "removing" / "5-1").mkdir(parents=True)
    with monkeypatch.context() as broken:
        broken.setattr(os, "rmdir", fail)
        with Checkpoints(pair, log=logged.append) as checkpoints:
            assert checkpoints.steps() == [10, 20]
    assert logged == [f"{pair}/removing cannot be deleted (Directory not empty); the run goes on"]


def test_an_error_in_the_body_does_not_lose_the_save(tmp_path):
    def fail():
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, small(1), {}, metric=None)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with Checkpoints(tmp_path, writable=False) as checkpoints:
        assert checkpoints.steps() == [1]
