"""The command `doctor`."""

import re

import pytest

from tests.commands import run_command
from tests.tiny import tiny_flags


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_names_the_limit_and_writes_nothing(tmp_path, capsys):
    flags = tiny_flags(total_steps=3, parallel="shard_map")
    ended = run_command(capsys, "doctor", *flags, "--seconds=0.3")
    assert ended.status == 0, ended.err
    assert ended.err == ""
    lines = ended.out.splitlines()
    assert lines[0] == "cifar_resnet8 on 1,437 images of digits, train"
    assert lines[1].startswith("8 x cpu (shard_map); ")
    assert re.search(r"Python 3\.\d+\.\d+, jax \d+\.\d+", lines[2])
    table = lines[5 : lines.index("", 5)]
    parts = [line.split()[0] for line in table if line[:1].islower()]
    assert parts == ["reading", "decoding", "batches", "transfer", "step", "together"]
    assert any(" limits: " in line for line in lines)
    assert any(line.startswith("- The devices are this machine's own cores") for line in lines)
    assert len(lines) <= 30
    assert not list(tmp_path.iterdir())


def test_help(capsys):
    ended = run_command(capsys, "doctor", "--help")
    assert ended.status == 0
    assert ended.out.startswith("Measures a run and names the part that limits it")
    assert "--seconds" in ended.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is not given; it is a file of configs/"),
        (tiny_flags(**{"model.name": "resnet5"}), "did you mean resnet50"),
        (tiny_flags(**{"data.source": "folder"}), "data.path is not set"),
        (tiny_flags(batch_size=7), "does not divide over 8 devices"),
        ([*tiny_flags(), "--seconds=0"], "0.1"),
        ([*tiny_flags(), "--seconds=nan"], "--seconds is nan; it must be a number"),
        ([*tiny_flags(), "--workdir=w"], "workdir"),
    ],
)
def test_wrong_input_gets_one_sentence(tmp_path, capsys, arguments, message):
    ended = run_command(capsys, "doctor", *arguments)
    assert ended.status == 2, ended.err
    assert ended.err.startswith("resnet_jax doctor: ")
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert ended.out == ""
    assert not list(tmp_path.iterdir())
