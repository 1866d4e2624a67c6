"""Runs in processes of their own."""

import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

import jax
import pytest

from resnet_jax.cli import frame
from resnet_jax.training import train
from tests.examples import Record
from tests.faults import Fault
from tests.faults.phases import Phases
from tests.outcomes import Outcome
from tests.tiny import tiny_config, tiny_flags

_ROOT = pathlib.Path(__file__).parents[1]
_PATIENCE = 240.0  # seconds


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A process that trains.

    Attributes:
      pid: Its number.
      status: Returns its exit status, minus a signal if that ended it; None while it runs.
      output: What it says on the terminal.
    """

    pid: int
    status: Callable[[], int | None]
    output: pathlib.Path

    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def wait_until_said(self, text: str) -> None:
        _wait_until(lambda: text in self.said() or self.status() is not None)
        assert text in self.said(), self.said()

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Returns its exit status when it has ended."""
        _wait_until(lambda: self.status() is not None)
        status = self.status()
        assert status is not None
        return status


@functools.cache
def _server() -> BaseContext:
    """Starts a server that imports everything once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "matplotlib.backends.backend_agg"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.fspath(_ROOT), prepend=os.pathsep)
        forkserver.ensure_running()
    return context


def fork(function: Callable[..., None], *args: object) -> BaseProcess:
    """Starts a process, with everything imported, that calls a function of a module."""
    process = _server().Process(target=function, args=args, daemon=True)
    process.start()
    return process


class Launcher:
    """Starts trainers of the tiny run, which share what was compiled."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._outputs = itertools.count(1)

    def start(
        self,
        workdir: pathlib.Path,
        *,
        fault: Fault | None = None,
        records: Sequence[Record | Phases] = (),
        devices: int = 2,
        processes: Sequence[str] = (),
        **overrides: object,
    ) -> Trainer:
        """Starts a trainer of `tiny_config(**overrides)`.

        `processes` are the flags of one of several processes, which is `train.py` itself. What is
        recorded of a process is written by it.
        """
        output = self._output()
        settings = {
            "jax_platforms": "cpu",
            "jax_num_cpu_devices": devices,
            "jax_compilation_cache_dir": os.environ["JAX_COMPILATION_CACHE_DIR"],
            "jax_persistent_cache_min_compile_time_secs": 0.0,
        }
        injected = [*records, *([] if fault is None else [fault])]
        process = fork(_train, workdir, overrides, injected, settings, processes, output)
        assert process.pid is not None
        return Trainer(process.pid, lambda: process.exitcode, output)

    def start_pair(
        self,
        workdir: pathlib.Path,
        *,
        faults: Sequence[Fault | None] = (None, None),
        records: Sequence[Sequence[Record | Phases]] = ((), ()),
        flags: Sequence[str] = (),
        **options: Any,
    ) -> list[Trainer]:
        """Starts the two processes of a run, each with its fault and its records."""
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        return [
            self.start(
                workdir,
                fault=faults[number],
                records=records[number],
                processes=[
                    f"--coordinator={address}",
                    "--num_processes=2",
                    f"--process_id={number}",
                ],
                **options,
            )
            for number in range(2)
        ]

    def start_command(self, workdir: pathlib.Path) -> Trainer:
        """Starts `python train.py` for `tiny_config()`."""
        output = self._output()
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "train.py", "--workdir", workdir, *tiny_flags()],
                cwd=_ROOT,
                env={
                    **os.environ,
                    "JAX_PLATFORMS": "cpu",
                    "JAX_NUM_CPU_DEVICES": "2",
                    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                },
                stdout=file,
                stderr=file,
            )
        return Trainer(process.pid, process.poll, output)

    def finish(self, workdir: pathlib.Path, **options: Any) -> str:
        """Starts a trainer, waits for its end, which has to be a good one; returns what it said."""
        trainer = self.start(workdir, **options)
        assert trainer.wait() == 0, trainer.said()
        return trainer.said()

    def _output(self) -> pathlib.Path:
        return self._folder / f"output-{next(self._outputs)}"


def _train(
    workdir: pathlib.Path,
    overrides: dict[str, object],
    injected: Sequence[Fault | Record | Phases],
    settings: dict[str, object],
    processes: Sequence[str],
    output: pathlib.Path,
) -> None:
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for name, value in settings.items():
        jax.config.update(name, value)
    for one in injected:
        one.inject()
    if processes:
        flags = [f"--workdir={workdir}", *tiny_flags(**overrides), *processes]
        try:
            frame.run("train", flags, name="train.py")
        finally:  # what jax does at the end of a process, but not of a forked one
            jax.distributed.shutdown()
    else:
        train(tiny_config(**overrides), workdir)


def _wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# Each module that imports a fixture has its own; what they return is made once for a session.


@functools.cache
def _launcher(session: pathlib.Path) -> Launcher:
    folder = session / "launcher"
    folder.mkdir()
    return Launcher(folder)


@functools.cache
def _finished(session: pathlib.Path) -> pathlib.Path:
    workdir = session / "finished"
    _launcher(session).finish(workdir)
    return workdir


@functools.cache
def _reference(session: pathlib.Path) -> Outcome:
    return Outcome.of(_finished(session))


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    return _launcher(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The workdir of a run that was never interrupted; only to be read."""
    return _finished(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What that run has left."""
    return _reference(tmp_path_factory.getbasetemp())
