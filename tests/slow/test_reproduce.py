"""The paper's tables from photos to Markdown by their protocols, and a report that was killed."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.commands import run_command
from tests.data.pictures import write_folder
from tests.quick import few_optimizations

pytestmark = pytest.mark.slow

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")
TINY = [
    "--config.model.stage_sizes=(1,1)",
    "--config.model.width=4",
    "--config.model.bn_group_size=8",
    "--config.data.image_size=32",
    "--config.data.eval_resize=36",
    "--config.batch_size=8",
    "--config.total_steps=2",
    "--config.log_every=1",
    "--config.eval_every=2",
    "--config.checkpoint_every=2",
]


@pytest.fixture
def photos(tmp_path):
    splits = {"train": dict.fromkeys(CLASSES, 4), "validation": dict.fromkeys(CLASSES, 2)}
    write_folder(tmp_path / "photos", splits, size=(50, 44))
    return tmp_path / "photos"


def test_tables_2_to_5_by_their_protocols(capsys, photos, tmp_path):
    out = tmp_path / "R"

    def reproduce(name, *options):
        with few_optimizations():
            ended = run_command(
                capsys, "reproduce", name, "--out", out, "--data", photos, *options, *TINY
            )
        assert ended.status == 0, ended.err
        text = (out / f"{name}.md").read_text()
        for end in ("md", "json", "png"):
            assert f"{out}/{name}.{end}" in ended.out
        rows = json.loads((out / f"{name}.json").read_text())["rows"]
        return text, {row["label"]: row["values"] for row in rows}

    text, rows = reproduce("table2")
    assert "test: ten crop" in text
    assert "not run" not in text
    for value in rows.values():
        (error,) = value["top1_error"]["ours"]
        assert error * 12 / 100 == pytest.approx(round(error * 12 / 100), abs=1e-5)

    text, rows = reproduce("table4")
    assert "test: multi scale" in text
    assert rows["ResNet-152"]["top5_error"]["mean"] is not None
    assert "| BN-inception | 21.99 | not run |  | 5.81 | not run |  |  |  |" in text

    text, rows = reproduce("table5")
    assert len(rows["ResNet, six networks"]["top5_error"]["ours"]) == 1
    assert (out / "runs" / "imagenet-resnet152-1").is_dir()
    assert "| PReLU-net | 4.94 | not run |  |  |  |" in text

    # Nothing is run, and VGG and GoogLeNet were not.
    text, rows = reproduce("table3", "--runs", out / "runs")
    assert "| VGG-16 | 28.07 | not run |  | 9.33 | not run |  |  |  |" in text
    assert rows["ResNet-34 A"]["top1_error"]["mean"] is not None
    assert not (out / "runs" / "vgg-vgg16-0").exists()


def test_killed_at_any_time_it_ends_with_the_same_report(tmp_path):
    def command(out):
        tiny = ["--config.model.stage_sizes=(1,)", "--config.model.width=2"]
        tiny += ["--config.total_steps=40", "--config.checkpoint_every=10"]
        program = [sys.executable, "-m", "resnet_jax", "reproduce", "degradation"]
        return [*program, "--out", str(out), "--seeds", "1", *tiny]

    def report(out):
        found = json.loads((out / "degradation.json").read_text())
        return {**found, "seconds": 0, "command": ""}

    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run(command(tmp_path / "whole"), check=True, env=environment, timeout=600)
    for number in (1, 3, 5):  # runs that have begun
        out = tmp_path / f"killed{number}"
        with subprocess.Popen(command(out), env=environment) as process:
            while len(list(out.glob("runs/*/config.json"))) < number:
                assert process.poll() is None
                time.sleep(0.05)
            process.kill()
        subprocess.run(command(out), check=True, env=environment, timeout=600)
        assert report(out) == report(tmp_path / "whole")
