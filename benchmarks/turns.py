"""Measurements by turns, each in a process of its own; the medians, as a table and as JSON."""

import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Result = dict[str, Any]
"""Numbers and words of a measurement by name; or `failed`, the reason why there is none."""

PACKAGES = ("jax", "jaxlib", "flax", "torch", "torchvision", "keras", "tensorflow_cpu")


class Spent(NamedTuple):
    """The time of a command that has ended.

    Attributes:
      wall: Seconds by the clock.
      processor: Seconds of processors, over all threads and the processes that it has waited for.
      output: Its standard output.
    """

    wall: float
    processor: float
    output: str


def run(
    command: Sequence[str],
    *,
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Spent:
    """Runs a command with further variables in its environment.

    Raises:
      subprocess.CalledProcessError: It failed; `stderr` is what it said.
      subprocess.TimeoutExpired: It was not done in time, and was killed.
    """
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
        check=True,
    )
    wall, after = time.perf_counter() - start, os.times()
    processor = sum(after[2:4]) - sum(before[2:4])  # of children that have ended
    return Spent(wall, processor, done.stdout)


def measure(
    command: Sequence[str],
    *,
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Result:
    """Returns what a command prints as JSON in its last line, or why it failed."""
    try:
        return json.loads(
            run(command, timeout=timeout, environment=environment).output.splitlines()[-1]
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done in {timeout:.0f} s"}
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or f"status {error.returncode}").splitlines()[-1]
        return {"failed": reason, "log": error.stderr[-2000:]}


def by_turns(
    jobs: Mapping[str, Callable[[], Result]],
    turns: int,
    describe: Callable[[str, Result], str],
) -> dict[str, Result]:
    """Runs all jobs in each turn, and describes each on a line; returns the medians of each.

    A job that fails is not run again. The numbers of a result become medians, the rest is that of
    the first turn, and `turns` has them all.
    """
    results: dict[str, list[Result]] = {name: [] for name in jobs}
    for _ in range(turns):
        for name, job in jobs.items():
            if results[name] and "failed" in results[name][-1]:
                continue
            results[name].append(job())
            print(describe(name, results[name][-1]), flush=True)
    return {name: median(of_turns) for name, of_turns in results.items()}


def median(results: Sequence[Result]) -> Result:
    """Returns the medians of the numbers of several results."""
    if len(results) == 1 or "failed" in results[-1]:
        return results[-1]
    numbers = {
        key: statistics.median(result[key] for result in results)
        for key, value in results[0].items()
        if isinstance(value, int | float)
    }
    return {**results[0], **numbers, "turns": results}


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells as text, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    )


def write(path: str | None, results: Mapping[str, Result]) -> None:
    """Writes results with the command and the machine as JSON, if there is a path."""
    if path is not None:
        found = {"command": shlex.join(sys.argv), "machine": machine(), "results": results}
        pathlib.Path(path).write_text(json.dumps(found, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Returns the processor, the devices and the versions; another process asks for devices."""
    script = "import jax; d = jax.devices(); print(len(d), 'x', d[0].device_kind)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "missing"
    return {
        "python": platform.python_version(),
        "processor": f"{os.cpu_count()} x {names[0] if names else platform.machine()}",
        "devices": done.stdout.strip(),
        "versions": versions,
    }
