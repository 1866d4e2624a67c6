"""Runs in processes of their own, and what they leave behind."""

import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess

import jax
import numpy as np
import pytest

from resnet_jax import config as configs
from resnet_jax.checkpoints import Checkpoints
from resnet_jax.training import train
from resnet_jax.training.run import Run
from resnet_jax.training.saved import templates
from tests.faults import Fault
from tests.tiny import tiny_config
from tests.training.test_tensorboard import scalars

_ROOT = pathlib.Path(__file__).parents[1]
_PATIENCE = 120.0  # seconds


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A process that trains.

    Attributes:
      process: It.
      output: What it says on the terminal.
    """

    process: ForkServerProcess
    output: pathlib.Path

    def wait(self) -> int:
        """Returns its exit status when it has ended; minus a signal if that ended it."""
        self.process.join(_PATIENCE)
        assert self.process.exitcode is not None, f"still running: {self.said()}"
        return self.process.exitcode

    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def wait_until_said(self, text: str) -> None:
        wait_until(lambda: text in self.said() or not self.process.is_alive())
        assert text in self.said()


class Launcher:
    """Starts trainers of the tiny run.

    A server imports everything once and forks a process for each; they share what was compiled.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._count = 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, "matplotlib.backends.backend_agg"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.fspath(_ROOT), prepend=os.pathsep)
            forkserver.ensure_running()

    @property
    def environment(self) -> dict[str, str]:
        """What makes another program compute as these processes do."""
        return {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
            "JAX_COMPILATION_CACHE_DIR": os.fspath(self._folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def start(
        self,
        workdir: pathlib.Path,
        *,
        fault: Fault | None = None,
        devices: int = 2,
        **overrides: object,
    ) -> Trainer:
        """Starts a trainer of `tiny_config(**overrides)`."""
        self._count += 1
        output = self._folder / f"output-{self._count}"
        settings = {
            "jax_platforms": "cpu",
            "jax_num_cpu_devices": devices,
            "jax_compilation_cache_dir": os.fspath(self._folder / "compiled"),
            "jax_persistent_cache_min_compile_time_secs": 0.0,
        }
        process = self._context.Process(
            target=_train, args=(workdir, overrides, fault, settings, output)
        )
        process.start()
        return Trainer(process, output)

    def finish(self, workdir: pathlib.Path, **options: object) -> str:
        """Starts a trainer, waits for its end, which has to be a good one; returns what it said."""
        trainer = self.start(workdir, **options)
        assert trainer.wait() == 0, trainer.said()
        return trainer.said()


def _train(
    workdir: pathlib.Path,
    overrides: dict[str, object],
    fault: Fault | None,
    settings: dict[str, object],
    output: pathlib.Path,
) -> None:
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for name, value in settings.items():
        jax.config.update(name, value)
    if fault is not None:
        fault.inject()
    train(tiny_config(**overrides), workdir)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All that a run leaves, but for times and names that differ in any two runs.

    Attributes:
      files: Names of the files outside of checkpoints and events, and of what lies beside the
        former.
      config: `config.json`.
      metrics: `metrics.jsonl`.
      curves: `report/curves.png`.
      scalars: What TensorBoard shows, but for speeds.
      checkpoints: For each step the bytes of every leaf, by its name.
    """

    files: list[str]
    config: bytes
    metrics: bytes
    curves: bytes
    scalars: list[tuple[int, str, float]]
    checkpoints: dict[int, dict[str, bytes]]

    @classmethod
    def of(cls, workdir: pathlib.Path) -> "Outcome":
        """Reads it; every checkpoint is verified."""
        outside = [workdir, workdir / "report", workdir / "checkpoints"]
        files = [path for folder in outside for path in folder.iterdir()]
        config = (workdir / "config.json").read_bytes()
        wanted = _templates(config)
        leaves = {}
        with Checkpoints(workdir / "checkpoints", writable=False) as checkpoints:
            for step in checkpoints.steps():
                checkpoint = checkpoints.restore(step, wanted)
                assert checkpoint is not None
                assert checkpoint.metadata == {"config": json.loads(config)}
                leaves[step] = _named_leaves(checkpoint.items)
        return cls(
            files=sorted(str(p.relative_to(workdir)) for p in files if p.name != "set_aside"),
            config=config,
            metrics=(workdir / "metrics.jsonl").read_bytes(),
            curves=(workdir / "report" / "curves.png").read_bytes(),
            scalars=[
                entry
                for entry in scalars(workdir / "tensorboard")
                if not entry[1].endswith("images_per_second")
            ],
            checkpoints=leaves,
        )


@functools.cache
def _templates(config: bytes) -> dict:
    return templates(Run.from_config(configs.complete(json.loads(config))))


def _named_leaves(tree: object) -> dict[str, bytes]:
    return {
        f"{jax.tree_util.keystr(path)}: {leaf.dtype}{leaf.shape}": np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    return Launcher(tmp_path_factory.mktemp("launcher"))


@pytest.fixture(scope="session")
def finished(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The workdir of a run that was never interrupted; only to be read."""
    workdir = tmp_path_factory.mktemp("finished") / "workdir"
    launcher.finish(workdir)
    return workdir


@pytest.fixture(scope="session")
def reference(finished: pathlib.Path) -> Outcome:
    return Outcome.of(finished)
