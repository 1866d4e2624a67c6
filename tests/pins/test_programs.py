"""Pins: exit statuses, refusals, lines of the terminal, first steps and learning rates.

The numbers in `programs.json` were written by the code of commit 3111d32.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.config import base_config
from resnet_jax.training import train
from resnet_jax.training.schedules import make_schedule
from tests.tiny import tiny_config, tiny_flags

ROOT = pathlib.Path(__file__).parents[2]
PINNED = json.loads((ROOT / "tests" / "pins" / "programs.json").read_text())
ENVIRONMENT = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)}


def program(name, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / name, *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )


def shape_of(text):
    """Returns a text with its numbers replaced, and what the speed of the machine decides."""
    text = re.sub(r"  +[\d.,]+ images/s.*", "", text)
    return re.sub(r"\d+\.\d+(e-?\d+)?", "#", text).replace(" #", "#").replace(" #", "#")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("programs") / "run"
    return workdir, program("train.py", f"--workdir={workdir}", *tiny_flags(total_steps=10))


def test_a_run_says_and_logs_the_same_lines(trained):
    workdir, ended = trained
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    lines = shape_of(ended.stderr.replace(str(workdir), "WORKDIR")).splitlines()
    *lines, shares = lines
    assert lines == PINNED["lines"]
    # It came after the pins.
    assert shares == "step 10/10  time   step#%  input#%  save#%  evaluation#%  start#%"
    log = (workdir / "metrics.jsonl").read_text()
    assert shape_of(log).splitlines() == PINNED["log"]
    for line in log.splitlines():
        assert line == json.dumps(json.loads(line), ensure_ascii=False)
    assert {path.name for path in workdir.iterdir()} >= set(PINNED["files"])


def test_a_workdir_of_another_config_is_refused(trained):
    workdir, _ = trained
    ended = program("train.py", f"--workdir={workdir}", *tiny_flags(total_steps=10, seed=1))
    assert ended.returncode == 2
    assert ended.stderr == (
        f"train.py: {workdir} is the workdir of another config (seed: 0 there, 1 here); "
        + ended.stderr.partition("; ")[2]
    )


def test_evaluation_prints_one_line_and_refuses_a_missing_step(trained):
    workdir, _ = trained
    ended = program("evaluate.py", f"--workdir={workdir}")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert list(found) == [*PINNED["evaluation"]]
    assert (found["step"], found["split"], found["examples"]) == (10, "test", 360)
    ended = program("evaluate.py", f"--workdir={workdir}", "--step=3")
    assert ended.returncode == 2
    assert ended.stderr.startswith("evaluate.py: no checkpoint 3 in ")
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("train.py", ["--config.toatl_steps=3"], "the config has no key"),
        ("train.py", ["--config.model.name=resnet5"], "there is no model 'resnet5'"),
        ("train.py", ["--config.batch_size=3"], "a batch of 3 does not divide over 2 devices; "),
        ("evaluate.py", ["--best", "--step=3"], "--step and --best each name a checkpoint; "),
    ],
)
def test_refusals_begin_with_the_same_words(tmp_path, name, arguments, message):
    ended = program(name, f"--workdir={tmp_path / 'run'}", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{name}: {message}")
    assert len(ended.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, ROOT / "train.py", f"--workdir={workdir}"]
    trainer = subprocess.Popen(
        [*command, *tiny_flags(total_steps=100_000, eval_every=50_000)],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    log = workdir / "metrics.jsonl"
    while trainer.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.02)
    trainer.send_signal(signal.SIGTERM)
    last = trainer.communicate(timeout=120)[1].splitlines()[-1]
    assert trainer.returncode == 75
    said = re.fullmatch(
        r"train\.py: interrupted by SIGTERM and saved at step (\d+); the same command goes on "
        rf"from there \(the workdir is {workdir}\)",
        last,
    )
    assert said, last
    step = int(said[1])
    ended = program("train.py", *command[2:], *tiny_flags(total_steps=step + 1, eval_every=50_000))
    assert ended.returncode == 0, ended.stderr
    assert f"going on from step {step}" in ended.stderr


def first_steps(workdir):
    """Returns the losses of the first three steps, and norms of the first and the third state."""
    norms = []
    for step in (1, 3):
        config = tiny_config(
            total_steps=step,
            log_every=1,
            checkpoint_every=1,
            eval_every=100,
            **{"optimizer.weight_decay": 0.0, "model.bn_group_size": 2},
        )
        state = jax.device_get(train(config, workdir))
        parts = (state.opt_state, state.params, state.batch_stats)
        norms.append([norm_of(part) for part in parts])
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    return {"losses": losses, "norms": norms}


def norm_of(tree):
    leaves = [np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)]
    return float(np.linalg.norm(np.concatenate(leaves)))


def test_the_first_steps_have_the_same_losses_and_gradients(tmp_path):
    """After the first step, without weight decay, the velocity is the gradient."""
    found = first_steps(tmp_path / "run")
    for key, values in PINNED["first_steps"].items():
        np.testing.assert_allclose(found[key], values, rtol=1e-5, err_msg=key)


SCHEDULES = {
    "step": {"boundaries": (12, 16), "warmup_steps": 4},
    "cosine": {"warmup_steps": 5, "learning_rate": 0.4},
    "constant": {"warmup_steps": 3, "warmup_learning_rate": 0.01},
    "plateau": {},
}


def rates(name):
    config = base_config().schedule
    config.update(name=name, **SCHEDULES[name])
    schedule = jax.jit(jax.vmap(make_schedule(config, 20)))
    return np.asarray(schedule(jnp.arange(20))).tolist()


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_give_the_same_rates(name):
    tolerance = 1e-6 if name == "cosine" else 1e-7  # XLA's cosine depends on the processor
    np.testing.assert_allclose(rates(name), PINNED["rates"][name], rtol=tolerance, atol=1e-9)
