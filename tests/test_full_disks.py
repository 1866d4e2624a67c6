"""No file can be written any more: a run ends with one sentence, and the same command goes on."""

import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from etils import epath

from resnet_jax.checkpoints import finished_steps
from resnet_jax.cli import frame
from tests.faults import Fault
from tests.launcher import fork, launcher, reference  # noqa: F401
from tests.outcomes import Outcome
from tests.tiny import tiny_flags


def limit_files(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Limits all files to 64 bytes; Python ignores the signal, so that writing raises EFBIG."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    return function(*args, **kwargs)


FAULTS = [
    Fault("resnet_jax.checkpoints.manifest:write", "*/8|*", limit_files),  # in the background
    Fault("resnet_jax.checkpoints:Checkpoints.save", "16", limit_files),
]


def train(fault: Fault, workdir: Path, output: Path) -> None:
    with output.open("wb") as file:
        os.dup2(file.fileno(), 2)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    fault.inject()
    frame.run("train", [f"--workdir={workdir}", *tiny_flags()], name="train.py")


def test_a_run_that_cannot_write_ends_with_one_sentence(launcher, reference, tmp_path):
    workdir, output = tmp_path / "workdir", tmp_path / "output"
    os.mkfifo(output)  # has no size
    for fault in FAULTS:
        process = fork(train, fault, workdir, output)
        said = output.read_text()
        process.join(60)
        assert process.exitcode == 1, said
        step = finished_steps(epath.Path(workdir / "checkpoints"))[-1]
        assert re.fullmatch(
            rf"train.py: \[Errno 27\] File too large: '{workdir}/.*'; all is saved up to step "
            f"{step}; the same command goes on from the newest checkpoint",
            said.splitlines()[-1],
        )
        assert "Traceback" not in said
    launcher.finish(workdir)
    assert Outcome.of(workdir) == reference
