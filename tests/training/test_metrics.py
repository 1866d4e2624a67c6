"""The log of an interrupted run is that of one never interrupted."""

import json
import math
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from resnet_jax.errors import InputError
from resnet_jax.training.logging import MetricsLog

LAST, CHECKPOINT_EVERY = 12, 4

DIE_AT_THE_RENAME = """
import os, signal, sys
from resnet_jax.training.logging import MetricsLog
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
MetricsLog(sys.argv[1], resume_step=4)
"""


def train(path, resume_step):
    """Writes the lines of a run: training every 2 steps, an evaluation every 4."""
    log = MetricsLog(path, resume_step=resume_step)
    for step in range(resume_step + 1, LAST + 1):
        if step % 2 == 0:
            log.write(step, "train", {"loss": 1 / step, "top1_error": 100 / 3 / step})
        if step % CHECKPOINT_EVERY == 0:
            log.write(step, "test", {"examples": 360, "loss": math.nan if step == 4 else 0.1})
            log.file.sync()
    log.file.close()


@pytest.fixture
def uninterrupted(tmp_path):
    train(tmp_path / "uninterrupted.jsonl", 0)
    return (tmp_path / "uninterrupted.jsonl").read_bytes()


def test_a_row_is_strict_json_with_step_and_split_first(tmp_path):
    log = MetricsLog(tmp_path / "log", resume_step=0)
    values: dict[str, Any] = {"loss": 0.5, "examples": np.int64(360), "rate": np.float32(0.1)}
    values["é"] = -math.inf
    log.write(3, "test", values)
    line = '{"step": 3, "split": "test", "loss": 0.5, "examples": 360, "rate": 0.10000000149011612'
    assert (tmp_path / "log").read_text("utf-8") == line + ', "é": "-Infinity"}\n'
    log.file.close()
    log.file.close()


def test_what_is_not_finite_comes_back(tmp_path):
    log = MetricsLog(tmp_path / "log", resume_step=0)
    log.write(1, "train", {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5})
    (row,) = log.rows()
    log.file.close()
    assert math.isnan(float(row.pop("a")))
    assert row == {"step": 1, "split": "train", "b": math.inf, "c": -math.inf, "d": 1.5}

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads((tmp_path / "log").read_bytes(), parse_constant=refuse)


def test_killed_at_any_byte_it_ends_the_same(tmp_path, uninterrupted, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a thousand of them take a while
    path = tmp_path / "log"
    ends = {}  # of what a checkpoint has made durable
    for step in range(CHECKPOINT_EVERY, LAST, CHECKPOINT_EVERY):
        marker = b'{"step": %d, "split": "test"' % step
        ends[step] = uninterrupted.index(b"\n", uninterrupted.index(marker)) + 1
    for length in range(len(uninterrupted) + 1):
        path.write_bytes(uninterrupted[:length])
        train(path, max((s for s, end in ends.items() if end <= length), default=0))
        assert path.read_bytes() == uninterrupted, length


def test_an_older_checkpoint_replays_more(tmp_path, uninterrupted):
    path = tmp_path / "log"
    for resume_step in (0, 4, 8, 12):
        path.write_bytes(uninterrupted)
        train(path, resume_step)
        assert path.read_bytes() == uninterrupted


def test_a_last_line_that_lacks_only_its_end_of_line_is_kept(tmp_path, uninterrupted):
    path = tmp_path / "log"
    path.write_bytes(uninterrupted[:-1])
    log = MetricsLog(path, resume_step=LAST)
    assert log.rows()[-1]["step"] == LAST
    log.file.close()
    assert path.read_bytes() == uninterrupted


def test_killed_while_it_removes_lines(tmp_path, uninterrupted):
    path = tmp_path / "log"
    path.write_bytes(uninterrupted)
    died = subprocess.run([sys.executable, "-c", DIE_AT_THE_RENAME, path], check=False)
    assert died.returncode == -signal.SIGKILL
    assert path.read_bytes() == uninterrupted
    train(path, 4)
    assert path.read_bytes() == uninterrupted
    assert sorted(os.listdir(tmp_path)) == ["log", "uninterrupted.jsonl"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"step": 2, "split": "tra', "Unterminated string"),
        (b"", "Expecting value"),
        (b"\xff\xfe", "Expecting value"),
        (b"[2]", "not a JSON object"),
        (b'{"step": "2", "split": "train"}', '"step" or "split" is missing'),
        (b'{"step": true, "split": "train"}', '"step" or "split" is missing'),
        (b'{"step": 2}', '"step" or "split" is missing'),
    ],
)
def test_a_log_that_was_edited_is_refused_and_left_alone(tmp_path, uninterrupted, line, why):
    path = tmp_path / "log"
    lines = uninterrupted.split(b"\n")
    content = b"\n".join([*lines[:2], line, *lines[2:]])
    path.write_bytes(content)
    message = rf"^line 3 of {path} is not one of a log \({why}.*\); repair or remove that line$"
    with pytest.raises(InputError, match=message):
        MetricsLog(path, resume_step=0)
    assert path.read_bytes() == content


def test_in_an_object_store_the_log_is_written_at_sync(object_store, tmp_path, uninterrupted):
    path = object_store / "metrics.jsonl"
    log = MetricsLog(path, resume_step=0)
    log.write(1, "train", {"loss": 1.0})
    assert not path.exists()
    log.file.sync()
    assert log.rows() == [{"step": 1, "split": "train", "loss": 1.0}]
    train(path, 0)
    assert path.read_bytes() == uninterrupted
    train(path, 8)
    assert path.read_bytes() == uninterrupted
