"""A workdir written by commit 3111d32 restores with equal bytes, and goes on with equal numbers."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import serialization

from resnet_jax import config as configs
from resnet_jax.checkpoints import Checkpoints
from resnet_jax.evaluation import restore
from resnet_jax.training import train

PINS = Path(__file__).parent
ROOT = PINS.parents[1]
EXPECTED = json.loads((PINS / "checkpoints.json").read_text())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return shutil.copytree(PINS / "run", tmp_path / "run")


def digests(tree) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(serialization.to_state_dict(tree))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): " ".join(
            [f"{leaf.dtype}{list(leaf.shape)}", hashlib.sha256(np.asarray(leaf)).hexdigest()]
        )
        for path, leaf in leaves
    }


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_manifests_hold(run: Path) -> None:
    for folder in (run / "checkpoints").glob("[0-9]*"):
        manifest = json.loads((folder / "manifest.json").read_text())
        assert sorted(manifest) == EXPECTED["manifest"]
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        del files["manifest.json"]
        assert manifest["files"] == {
            name: {
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for name, path in files.items()
        }
        assert manifest["items"]["variables"].items() >= EXPECTED["variables"].items()
        assert manifest["items"]["training"].items() >= EXPECTED["training"].items()
        assert manifest["items"]["measured"] == EXPECTED["measured"]


def test_a_complete_run_restores_with_equal_bytes(run):
    config = configs.complete(json.loads((run / "config.json").read_text()))
    state = train(config, run)
    assert digests(state).items() >= EXPECTED["state"].items()
    assert lines(run) == lines(PINS / "run")


def test_every_checkpoint_verifies(run):
    with Checkpoints(run / "checkpoints", writable=False) as checkpoints:
        assert checkpoints.steps() == [10, 30]
    for step in (10, 30):
        trained = restore(run, step)
        assert trained.step == step
        assert digests(trained.variables) == EXPECTED["variables of"][str(step)]
    assert restore(run, "best").step == 10
    assert_manifests_hold(run)


def test_an_earlier_checkpoint_goes_on_to_the_same_end(run):
    shutil.rmtree(run / "checkpoints" / "30")
    subprocess.run(
        [sys.executable, "train.py", "--config=tests/tiny.py", f"--workdir={run}"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
        check=True,
    )
    before, after = restore(PINS / "run", 30), restore(run, 30)
    for (path, expected), actual in zip(
        jax.tree_util.tree_leaves_with_path(before.variables),
        jax.tree.leaves(after.variables),
        strict=True,
    ):
        allowed = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=allowed, err_msg=str(path))

    for expected, actual in zip(lines(PINS / "run"), lines(run), strict=True):
        assert list(actual) == list(expected)
        assert actual.pop("split") == expected.pop("split")
        assert actual == pytest.approx(expected, rel=1e-5)

    config = json.loads((run / "config.json").read_text())
    assert set(config) >= set(EXPECTED["config"])
    assert {path.name for path in run.iterdir()} == set(EXPECTED["workdir"])
    assert {path.name for path in (run / "report").iterdir()} == {"curves.png"}
    assert all("tfevents" in path.name for path in (run / "tensorboard").iterdir())
    steps = {path.name for path in (run / "checkpoints").iterdir() if path.name.isdigit()}
    assert steps == {"10", "24", "28", "30"}
    assert_manifests_hold(run)
