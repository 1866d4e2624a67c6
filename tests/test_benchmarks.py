"""The benchmarks at their smallest."""

import argparse
import importlib
import importlib.util
import pathlib
import sys

import pytest

from tests.data.pictures import write_folder
from tests.quick import few_optimizations

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a benchmark as its own command does."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    for path in BENCHMARKS.glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return importlib.import_module


@pytest.mark.parametrize("task", [pytest.param("train", marks=pytest.mark.slow), "infer"])
def test_a_step_is_timed_and_its_memory_planned(benchmark, task):
    options = argparse.Namespace(
        **{"task": task, "model": "cifar_resnet8", "dtype": "float32", "batch": 8, "size": 8},
        **{"set": ["width=2"], "seconds": 0, "steps": 1, "profile": None},
    )
    with few_optimizations():
        result = benchmark("step").measure("ours", options)
        plan = benchmark("peers").build("ours", options).plan()
    assert result["platform"] == "cpu"
    assert result["milliseconds"] > 0
    assert result["peak_bytes"] > 0
    assert min(plan["arguments"], plan["outputs"], plan["temporaries"]) > 0


def test_a_missing_peer_is_said_to_be_missing(benchmark, monkeypatch, capsys):
    peers, step = benchmark("peers"), benchmark("step")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="torch is missing"):
        peers.build("torch", argparse.Namespace())
    found = step.comparison({"torch": {"peer": "torch", "failed": "torch is missing"}})
    assert found.endswith("torch is missing")


def test_medians_of_turns_leave_out_what_failed(benchmark, capsys):
    numbers = iter([1.0, 9.0, 2.0])
    jobs = {
        "good": lambda: {"seconds": next(numbers), "name": "a"},
        "bad": lambda: {"failed": "missing"},
    }
    results = benchmark("turns").by_turns(jobs, 3, lambda name, result: name)
    assert capsys.readouterr().out.split() == ["good", "bad", "good", "good"]
    assert results["good"]["seconds"] == 2.0
    assert len(results["good"]["turns"]) == 3
    assert results["bad"] == {"failed": "missing"}


def test_a_command_that_fails_leaves_its_reason(benchmark):
    turns = benchmark("turns")
    assert turns.measure([sys.executable, "-c", "print('{\"a\": 1}')"]) == {"a": 1}
    failed = turns.measure([sys.executable, "-c", "raise SystemExit('no such peer')"])
    assert failed["failed"] == "no such peer"


def test_batches_are_timed_in_memory(benchmark, tmp_path):
    write_folder(tmp_path, {"train": {"a": 2, "b": 2}}, size=(32, 32))
    benches = benchmark("input")
    result = benches.measure("ours", benches.ours_in_memory, str(tmp_path), 2, 128)
    assert result["batch_milliseconds"] > 0
    assert result["processor_milliseconds"] >= 0


def test_saves_are_timed(benchmark):
    (time,) = benchmark("loop").time_saves(1, "cifar_resnet8")
    assert time.wall > 0
