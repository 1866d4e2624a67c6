"""The program from the outside."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.tiny import tiny_flags

ROOT = pathlib.Path(__file__).parents[2]


def doctor(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "resnet_jax", "doctor", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)},
        check=False,
    )


def test_says_what_limits_and_writes_nothing(tmp_path):
    ended = doctor(*tiny_flags(total_steps=3), "--seconds=1", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert lines[0] == "cifar_resnet8 on 1,437 images of digits, train"
    assert lines[1].startswith("2 x cpu (pmap); ")
    assert re.search(r"Python 3\.\d+\.\d+, jax \d+\.\d+", lines[2])
    parts = [line.split()[0] for line in lines[5:] if line[:1].islower()]
    assert parts == ["reading", "decoding", "batches", "transfer", "step", "together"]
    assert any(" limits: " in line for line in lines)
    assert any(line.startswith("- The devices are this machine's own cores") for line in lines)
    assert len(lines) <= 30
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is not given; it is a file of configs/"),
        (tiny_flags(**{"model.name": "resnet5"}), "did you mean resnet50"),
        (tiny_flags(**{"data.source": "folder"}), "data.path is not set"),
        (tiny_flags(batch_size=7), "does not divide over 2 devices"),
        ([*tiny_flags(), "--seconds=0"], "0.1"),
        ([*tiny_flags(), "--seconds=nan"], "--seconds is nan; it has to be a number"),
        ([*tiny_flags(), "--workdir=w"], "workdir"),
    ],
)
def test_wrong_input_gets_one_sentence(tmp_path, arguments, message):
    ended = doctor(*arguments, cwd=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("resnet_jax doctor: ")
    assert message in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stdout == ""
    assert not list(tmp_path.iterdir())
