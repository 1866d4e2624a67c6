"""A write that is killed leaves the old file."""

import contextlib
import errno
import os
import signal

import pytest

from resnet_jax import InputError
from resnet_jax.files import GrowingFile, is_local, resolve_path, write_atomically
from tests.faults import Fault, die_before
from tests.launcher import fork


def write_and_die(path, moment):
    Fault(f"os:{moment}", "*", die_before).inject()
    write_atomically(path, b"new")


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_killed_before_the_rename_the_old_content_stays(tmp_path, moment):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    process = fork(write_and_die, path, moment)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(("number", "allowed"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_folder_need_not_be_durable_by_itself(tmp_path, monkeypatch, number, allowed):
    fsync = os.fsync

    def fail_for_folders(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_for_folders)
    with contextlib.nullcontext() if allowed else pytest.raises(OSError, match="output error"):
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_the_folder_is_made(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("path", "local"), [("/a/b", True), ("a", True), ("gs://a/b", False), ("s3://a", False)]
)
def test_what_is_local(path, local):
    assert is_local(path) is local


def test_an_unknown_kind_of_store_is_refused():
    assert resolve_path("~/a").is_absolute()
    with pytest.raises(InputError, match=r"^https://example.org/a is in no store that can "):
        resolve_path("https://example.org/a")


def test_in_an_object_store_it_is_one_object(object_store):
    write_atomically(object_store / "folder" / "file", b"one")
    write_atomically(object_store / "folder" / "file", b"two")
    assert (object_store / "folder" / "file").read_bytes() == b"two"
    assert [p.name for p in (object_store / "folder").iterdir()] == ["file"]


def test_what_was_appended_is_there_at_once(tmp_path):
    for content in (b"one", b"two"):
        file = GrowingFile(tmp_path / "folder" / "file")
        file.write(content)
        assert (tmp_path / "folder" / "file").read_bytes().endswith(content)
        file.close()
        file.close()
    assert (tmp_path / "folder" / "file").read_bytes() == b"onetwo"


def test_appending_in_an_object_store(object_store):
    file = GrowingFile(object_store / "file")
    file.write(b"one")
    assert not (object_store / "file").exists()
    file.sync()
    assert (object_store / "file").read_bytes() == b"one"
    file.write(b"two")
    file.close()
    file.close()
    file = GrowingFile(object_store / "file")
    file.write(b"three")
    file.close()
    assert (object_store / "file").read_bytes() == b"onetwothree"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
def test_what_there_is_no_room_for_is_not_taken_for_written():
    file = GrowingFile("/dev/full")
    for call in (lambda: file.write(b"one"), file.sync, file.close):
        with pytest.raises(OSError, match="No space left"):
            call()
    file.close()
