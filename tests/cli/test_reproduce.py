"""The command `reproduce`."""

import json
import os
import signal
from signal import SIGTERM

import pytest

from resnet_jax.cli import reproduce as command
from tests.commands import run_command


@pytest.fixture
def reproduce(capsys):
    return lambda *arguments: run_command(capsys, "reproduce", *arguments)


def test_the_list_has_every_name_with_its_data(reproduce):
    ended = reproduce("--list")
    assert ended.status == 0
    for name in ("degradation", "figure1", "figure4", "figure6", "figure7", "table1", "table6"):
        assert f"\n{name} " in f"\n{ended.out}"
    assert "data: digits" in ended.out


def test_redraws_from_the_json_alone(reproduce, tmp_path):
    row = {"label": "ResNet-20", "configs": [], "seeds": [], "steps": []}
    value = {"paper": 8.75, "ours": [], "mean": None, "interval": None, "difference": None}
    report = {
        "name": "table6",
        "heading": "Table 6",
        "kind": "numbers",
        "protocol": "single_crop",
        "data": "CIFAR-10",
        "length": 1.0,
        "rows": [{**row, "values": {"top1_error": value}}],
        "conclusions": [],
        "text": "",
        "note": "",
        "hardware": "",
        "version": "",
        "seconds": 0,
        "command": "",
    }
    (tmp_path / "table6.json").write_text(json.dumps(report))
    ended = reproduce("table6", "--out", tmp_path, "--redraw")
    assert ended.status == 0, ended.err
    assert "| ResNet-20 | 8.75 | not run |  |" in (tmp_path / "table6.md").read_text()
    assert json.loads((tmp_path / "table6.json").read_text()) == report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a NAME and --out"),
        (["table6"], "give a NAME and --out"),
        (["table7", "--out", "R"], "did you mean table6"),
        (["table6", "--out", "R", "--redraw"], "there is no R/table6.json"),
        (["table6", "--out", "R", "--fraction", "2"], "the fraction is 2.0"),
        (["table6", "--out", "R", "--seeds", "0"], "seeds are 0"),
        (["table6", "--out", "https://R"], "in no store"),
        (["table6", "--out", "file"], "cannot be written"),
        (["table6", "--out", "R", "--config=cifar10.py"], "--config.KEY=VALUE"),
        (["table6", "--out", "R", "--config.model=3", "--config.model.width=2"], "has a value"),
        (["table6", "--out", "R", "--config.seed=3"], "give --seeds"),
        (["table6", "--out", "R", "--config.total_steps=0"], "total_steps is 0"),
        (["table6", "--out", "R", "--config.data.train_split=None"], "train_split is None"),
        (["table6", "--out", "R", "--config.batch=3"], "batch_size"),
        (["table6", "--out", "R", "stray"], "'stray' is not an argument"),
        (["table6", "--out", "R", "--runs", "nowhere"], "not a folder"),
        (["table6", "--out", "R", "--data", "nowhere"], "nowhere"),
        (["table2", "--out", "R", "--held_out"], "held out of CIFAR-10 only"),
        (["table6", "--out", "R", "--runs", "."], "no run that has ended"),
    ],
)
def test_wrong_arguments_are_one_sentence(reproduce, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    ended = reproduce(*arguments)
    assert ended.status == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not list(tmp_path.glob("R/table*"))


def test_a_signal_while_nothing_is_trained_says_to_start_again(reproduce, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "make_report", lambda *_, **__: os.kill(os.getpid(), SIGTERM))
    before = signal.getsignal(SIGTERM)
    ended = reproduce("table1", "--out", tmp_path)
    signal.signal(SIGTERM, before)
    assert ended.status == 75
    assert ended.err == "resnet_jax reproduce: ended by SIGTERM; the same command goes on\n"


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "table6"}',
        "[]",
        '{"name": "table6", "kind": "numbers", "rows": []}',
        '{"name": "table6", "kind": "numbers", "rows": [{"label": 3, "values": []}]}',
    ],
)
def test_a_damaged_report_is_refused(reproduce, tmp_path, text):
    (tmp_path / "table6.json").write_text(text)
    ended = reproduce("table6", "--out", tmp_path, "--redraw")
    assert ended.status == 2
    assert "is not a report of table6" in ended.err
