"""What real processes share at their start is done once, and all of them get it."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from resnet_jax.checkpoints import Checkpoints
from resnet_jax.data import load_source, measure_statistics
from tests.data.pictures import write_folder
from tests.sharing_processes import TREE, Pixels

ROOT = pathlib.Path(__file__).parents[1]
CLASSES = {"a": 4, "b": 2, "c": 3}
PROCESSES = 2


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """The folder they worked in, and what each of them found."""
    folder = tmp_path_factory.mktemp("shared")
    write_folder(folder / "data", {"train": CLASSES, "val": CLASSES})
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(3, {"tree": TREE}, {"name": "é"}, metric=0.5)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, ROOT / "tests" / "sharing_processes.py", folder, port, PROCESSES]
    started = [
        subprocess.Popen(
            [*map(str, command), str(process)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(PROCESSES)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    # The primary one fails at last; the other notices it, or jax does so before.
    assert [process.returncode for process in started] in ([1, 0], [1, -6]), "\n".join(outputs)
    return folder, [
        json.loads((folder / f"{process}.json").read_text()) for process in range(PROCESSES)
    ]


def test_one_process_lists_the_data_for_all(processes):
    folder, (primary, other) = processes
    assert {f"train/{name}" for name in CLASSES} <= set(primary["listed"])
    assert other["listed"] == ["."]  # to see that the data are there
    assert primary["keys"] == other["keys"]
    assert len(primary["keys"]) == 9
    alone = load_source("folder", "train", path=folder / "data")
    assert [alone[index].key for index in range(9)] == primary["keys"]


def test_each_process_measures_its_share_and_all_get_the_same(processes):
    found = processes[1]
    assert [one["read"] for one in found] == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    alone = measure_statistics(Pixels(), "pixel", "channel")
    for one in found:
        assert one["statistics"] == [np.asarray(array).tobytes().hex() for array in alone[:2]]


def test_one_process_reads_a_checkpoint_for_all(processes):
    folder, found = processes
    paths = (folder / "checkpoints").rglob("*")
    size = sum(path.stat().st_size for path in paths if path.is_file())
    primary, other = (one["restored"] for one in found)
    for one in (primary, other):
        assert one["same"]
        assert one["rest"] == [3, {"name": "é"}, [0.5, None]]
    if sys.platform == "linux":
        assert size <= primary["read"] < 4 * size
        assert other["read"] < 0.2 * size  # what is imported by then


def test_values_of_any_length_arrive(processes):
    for one in processes[1]:
        assert one["once"]
        assert one["total"] == [36 << 40]


def test_all_are_refused_wherever_one_leaves_and_go_on_together(processes):
    first, second = (one["refused"] for one in processes[1])
    assert first == [
        ["no data in process 0", True],
        ["no data in process 1 (process 1)", True],
        None,
    ]
    assert second == [
        ["no data in process 0 (process 0)", True],
        ["no data in process 1", True],
        None,
    ]
