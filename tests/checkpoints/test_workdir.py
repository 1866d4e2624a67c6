"""A workdir belongs to one run, and to one trainer at a time."""

import json
import os
import re
import signal
import threading
import time

import pytest

from resnet_jax.checkpoints import BusyError, Layout, Workdir, read_config
from resnet_jax.errors import InputError
from tests.faults import Fault, die_before
from tests.launcher import fork

CONFIG = {
    "model": {"name": "cifar_resnet20", "shortcut": "A"},
    "data": {"source": "digits", "path": None},
    "boundaries": (200, 300),
    "seed": 0,
}


def hold(path, held):
    with Workdir(path, {"seed": 0}, may_change=()):
        held.touch()
        time.sleep(60)


def open_and_die(path, log_every):
    Fault("os:replace", "*", die_before).inject()
    Workdir(path, {"seed": 0, "log_every": log_every}, may_change=["log_every"])


def changed(**changes):
    return CONFIG | changes


def open_and_close(path, config, may_change=()):
    with Workdir(path, config, may_change=may_change) as workdir:
        return workdir


def files(folder):
    return sorted(os.path.join(p, name) for p, _, names in os.walk(folder) for name in names)


def test_a_new_workdir_keeps_its_config(tmp_path):
    workdir = open_and_close(tmp_path / "a" / "w", CONFIG)
    text = workdir.config_path.read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert read_config(tmp_path / "a" / "w") == CONFIG | {"boundaries": [200, 300]}


def test_what_lies_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layout = Layout("w")
    assert os.fspath(layout.path) == str(tmp_path / "w")
    assert layout.checkpoints == layout.path / "checkpoints"
    assert layout.metrics == layout.path / "metrics.jsonl"
    assert layout.report == layout.path / "report"
    assert layout.tensorboard == layout.path / "tensorboard"
    assert not layout.path.exists()


def test_the_same_config_goes_on(tmp_path):
    open_and_close(tmp_path / "w", CONFIG)
    before = os.stat(tmp_path / "w" / "config.json").st_mtime_ns
    open_and_close(tmp_path / "w", CONFIG)
    assert os.stat(tmp_path / "w" / "config.json").st_mtime_ns == before


def test_another_config_is_refused_with_the_differences(tmp_path):
    open_and_close(tmp_path / "w", CONFIG)
    before = (tmp_path / "w" / "config.json").read_bytes()
    other = {
        "model": {"name": "cifar_plain20"},
        "data": {"source": "digits", "path": "/elsewhere"},
        "boundaries": (200, 300),
        "seed": 0,
        "dtype": "bfloat16",
    }
    with pytest.raises(InputError) as caught:
        Workdir(tmp_path / "w", other, may_change=["data.path"])
    assert str(caught.value) == (
        f"{tmp_path}/w is the workdir of another config ("
        "dtype: absent there, 'bfloat16' here; "
        "model.name: 'cifar_resnet20' there, 'cifar_plain20' here; "
        "model.shortcut: 'A' there, absent here); "
        "give another workdir, or the config that this one was started with"
    )
    assert (tmp_path / "w" / "config.json").read_bytes() == before
    open_and_close(tmp_path / "w", CONFIG)  # the refusal has let go of it


@pytest.mark.parametrize("may_change", ["data.path", "data"])
def test_what_is_not_the_identity_may_change(tmp_path, may_change):
    open_and_close(tmp_path / "w", CONFIG)
    other = changed(data={"source": "digits", "path": "/elsewhere"})
    open_and_close(tmp_path / "w", other, [may_change])
    assert read_config(tmp_path / "w")["data"] == {"source": "digits", "path": "/elsewhere"}


def test_a_name_covers_what_is_below_it_and_no_longer_name(tmp_path):
    open_and_close(tmp_path / "w", CONFIG | {"database": 1})
    with pytest.raises(InputError, match="database: 1 there, 2 here"):
        Workdir(tmp_path / "w", CONFIG | {"database": 2}, may_change=["data"])


def test_keys_that_are_newer_than_the_run_have_their_defaults(tmp_path):
    open_and_close(tmp_path / "w", CONFIG)
    newer = changed(data={"source": "digits", "path": "/here", "color": "none"})
    defaults = {"data": {"source": "another", "color": "none"}}
    with pytest.raises(InputError, match=r"data\.color: absent there, 'none' here"):
        Workdir(tmp_path / "w", newer, may_change=["data.path"])
    with pytest.raises(InputError, match=r"data\.color: 'none' there, 'pca' here\)"):
        Workdir(
            tmp_path / "w",
            changed(data={"source": "digits", "color": "pca"}),
            may_change=["data.path"],
            defaults=defaults,
        )
    with Workdir(tmp_path / "w", newer, may_change=["data.path"], defaults=defaults):
        assert read_config(tmp_path / "w") == json.loads(json.dumps(newer))


@pytest.mark.parametrize(
    ("there", "here", "difference"),
    [
        ({"a": {}}, {"a": {"b": 1}}, "a: {} there, absent here; a.b: absent there, 1 here"),
        ({"a": None}, {}, "a: None there, absent here"),
        ({"a": [1, 2]}, {"a": [1, 3]}, r"a: \[1, 2\] there, \[1, 3\] here"),
        ({"a": 1}, {"a": True}, "a: 1 there, True here"),
    ],
)
def test_differences_of_form(tmp_path, there, here, difference):
    open_and_close(tmp_path / "w", there)
    with pytest.raises(InputError, match=difference):
        Workdir(tmp_path / "w", here, may_change=())


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "w"):
        with pytest.raises(InputError, match="cannot be a workdir, a file is in its place; give"):
            Workdir(path, CONFIG, may_change=())
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_is_written_among_anothers_files(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"has no config\.json but holds thesis\.tex; give a"):
        Workdir(tmp_path, CONFIG, may_change=())
    assert files(tmp_path) == [str(tmp_path / "thesis.tex")]


def test_a_folder_that_cannot_be_made(tmp_path):
    with pytest.raises(InputError, match=r"w{300} cannot be made \(File name too long\); give"):
        Workdir(tmp_path / ("w" * 300), CONFIG, may_change=())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b'{"seed": 0, "mod', "Unterminated string"),
        (b"\xff\xfe\xfa", "'utf-16-le' codec can't decode"),
        (b"[1]", "it holds no JSON object"),
    ],
)
def test_a_damaged_config(tmp_path, content, why):
    open_and_close(tmp_path / "w", CONFIG)
    (tmp_path / "w" / "config.json").write_bytes(content)
    message = rf"config\.json is damaged \({why}.*; put back the config that the run was started"
    with pytest.raises(InputError, match=message):
        Workdir(tmp_path / "w", CONFIG, may_change=())
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / "w")
    assert (tmp_path / "w" / "config.json").read_bytes() == content


def test_reading_what_is_no_workdir(tmp_path):
    with pytest.raises(InputError, match=r"there is no workdir .*/w; train\.py makes one"):
        read_config(tmp_path / "w")
    with pytest.raises(InputError, match=r"is no workdir: it has no config\.json; give the"):
        read_config(tmp_path)


def test_a_second_trainer_is_refused_until_the_first_is_killed(tmp_path, capsys):
    first = fork(hold, tmp_path / "w", tmp_path / "held")
    while not (tmp_path / "held").exists():
        assert first.is_alive()
        time.sleep(0.01)
    busy = rf"another trainer is at work in {tmp_path}/w \(process {first.pid} on .+\); "
    with pytest.raises(BusyError, match=f"{busy}start again when it has ended") as refusal:
        Workdir(tmp_path / "w", {"seed": 0}, may_change=())
    assert refusal.value.exit_status == 75
    with pytest.raises(BusyError):
        Workdir(tmp_path / "w", {"seed": 0}, may_change=(), lock_timeout=0.3)
    assert re.fullmatch(f"{busy}waiting up to 0.3 s until it has ended\n", capsys.readouterr().err)
    assert read_config(tmp_path / "w") == {"seed": 0}
    threading.Timer(0.5, first.kill).start()
    with Workdir(tmp_path / "w", {"seed": 0}, may_change=(), lock_timeout=60):
        assert not first.is_alive()


def test_killed_before_its_config_is_in_place(tmp_path):
    def die(log_every):
        process = fork(open_and_die, tmp_path / "w", log_every)
        process.join()
        assert process.exitcode == -signal.SIGKILL

    die(10)
    open_and_close(tmp_path / "w", {"seed": 0, "log_every": 10})  # no stranger's folder
    before = (tmp_path / "w" / "config.json").read_bytes()
    die(20)
    assert (tmp_path / "w" / "config.json").read_bytes() == before
    open_and_close(tmp_path / "w", {"seed": 0, "log_every": 20}, ["log_every"])
    assert read_config(tmp_path / "w") == {"seed": 0, "log_every": 20}
    assert sorted(os.listdir(tmp_path / "w")) == [".lock", "config.json"]


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with Workdir(tmp_path / "w", CONFIG, may_change=()):
        open_and_close(tmp_path / "w", CONFIG)


def test_in_an_object_store(object_store):
    open_and_close(object_store, {"seed": 0})
    assert [p.name for p in object_store.iterdir()] == ["config.json"]
    assert read_config(object_store) == {"seed": 0}
    with pytest.raises(InputError, match=r"gs://bucket/folder is the workdir of another config"):
        Workdir(object_store, {"seed": 1}, may_change=())
    (object_store / "other" / "file").write_bytes(b"mine")
    with pytest.raises(InputError, match="holds file"):
        Workdir(object_store / "other", {"seed": 1}, may_change=())
