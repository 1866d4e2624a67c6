"""Whole runs of two processes, two devices each, on one machine."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from resnet_jax.training import train
from tests.tiny import tiny_config, tiny_flags

ROOT = pathlib.Path(__file__).parents[1]


def start(program, *arguments, before=((), ()), of_second=()):
    """Starts two processes of a program, with arguments of their own before and after."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen(
            [
                sys.executable,
                ROOT / program,
                *before[number],
                *arguments,
                *(of_second if number else ()),
                f"--coordinator={address}",
                "--num_processes=2",
                f"--process_id={number}",
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]


def finish(processes):
    outputs = [process.communicate(timeout=120) for process in processes]
    return [process.returncode for process in processes], outputs


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_are_refused_train_go_on_and_evaluate_as_one_process_does(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letters").write_text("")
    every = {"log_every": 5, "eval_every": 5, "checkpoint_every": 100}
    changes = {**every, "total_steps": 10, "model.bn_group_size": 8}
    statuses, outputs = finish(
        start("tests/several_programs.py", tmp_path, *tiny_flags(**changes), "--")
    )
    assert statuses == [0, 0], outputs

    refusals = [out.split("refused: ")[1].splitlines()[0] for out, _ in outputs]
    assert refusals[0].startswith(f"{tmp_path / 'full'} is no workdir: ")
    assert refusals[1] == f"{refusals[0].removesuffix(' True')} (process 0) True"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letters"]

    assert "4 x cpu" in outputs[0][1]
    assert "in 2 processes" in outputs[0][1]
    assert "going on from step 5" in outputs[0][1]
    assert "step" not in outputs[1][1]
    train(tiny_config(**changes), tmp_path / "one")
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "run"), strict=True):
        assert (one["step"], one["split"]) == (two["step"], two["split"])
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)

    found = json.loads(outputs[0][0].splitlines()[-1])  # Gloo writes to stdout, too
    assert found["examples"] == 360
    assert found["loss"] == pytest.approx(rows(tmp_path / "run")[-1]["loss"], rel=1e-6)
    assert "{" not in outputs[1][0]
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [f"digits/{1437 + i}" for i in range(360)]


@pytest.mark.slow
def test_a_signal_to_one_ends_both_at_the_same_step_and_they_go_on(tmp_path):
    flags = [f"--workdir={tmp_path / 'run'}", *tiny_flags(total_steps=3000, eval_every=1000)]
    processes = start("train.py", *flags)
    log = tmp_path / "run" / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert processes[0].poll() is None
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    statuses, outputs = finish(processes)
    assert statuses == [75, 75], outputs
    ends = [output[1].split("saved at step ")[1].split(";")[0] for output in outputs]
    assert ends[0] == ends[1]

    shorter = [flag for flag in flags if "total_steps" not in flag]
    total = int(ends[0]) + 5
    statuses, outputs = finish(start("train.py", *shorter, f"--config.total_steps={total}"))
    assert statuses == [0, 0], outputs
    assert f"going on from step {ends[0]}" in outputs[0][1]
    assert rows(tmp_path / "run")[-1]["step"] == total
