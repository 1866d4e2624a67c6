"""The start of several processes: of which one does not come, or does not see the workdir."""

import os
import re
import socket
from pathlib import Path

import jax
import pytest

from resnet_jax.checkpoints import workdir as workdirs
from resnet_jax.cli import frame
from resnet_jax.parallel import processes
from tests.launcher import fork
from tests.tiny import tiny_flags


def train(output: Path, number: int, *flags: str) -> None:
    """Trains as one of two processes; waits and says so sooner than usual."""
    with output.open("wb") as file:
        os.dup2(file.fileno(), 2)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    processes._SAY_EVERY = 0.5
    workdirs._SHARED_AFTER = 0.5
    number_flags = ["--num_processes=2", f"--process_id={number}"]
    frame.run("train", [*number_flags, *flags, *tiny_flags()], name="train.py")


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


@pytest.fixture
def run(tmp_path):
    """Runs processes together; returns the status and the lines of each."""

    def run(*flags):
        outputs = [tmp_path / f"output-{number}" for number in range(len(flags))]
        started = [fork(train, outputs[n], n, *own) for n, own in enumerate(flags)]
        for process in started:
            process.join(60)
        return [
            (process.exitcode, output.read_text().splitlines())
            for process, output in zip(started, outputs, strict=True)
        ]

    return run


def test_one_that_waits_in_vain_says_for_whom_and_asks_to_be_started_again(run, tmp_path):
    addresses = [free_address(), free_address()]
    usual = [f"--workdir={tmp_path / 'run'}", "--join_timeout=3"]
    ended = run(*([*usual, f"--coordinator={address}"] for address in addresses))
    missing = [
        f"process 0: 1 of 2 processes have come to {addresses[0]}",
        f"process 1: process 0 does not answer at {addresses[1]} ([Errno 111] Connection refused)",
    ]
    for (status, lines), who in zip(ended, missing, strict=True):
        assert status == 75, lines
        assert any(
            re.fullmatch(re.escape(who) + r"; waiting, \d of 3 s are left", x) for x in lines
        )
        assert lines[-1] == f"train.py: {who} after 3 s (--join_timeout); start all again"
        assert "Check failure" not in lines
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_is_not_shared_is_refused_by_both(run, tmp_path):
    address = free_address()
    (tmp_path / "run1").mkdir()
    (tmp_path / "run1" / ".shared-1").touch()
    ended = run(*([f"--workdir={tmp_path}/run{n}", f"--coordinator={address}"] for n in range(2)))
    sentence = (
        f"train.py: the workdir {tmp_path / 'run1'} is not shared: process 1 on "
        f"{socket.gethostname()} does not see what process 0 has written there; "
        "give one in a folder that all hosts share"
    )
    (first, told), (second, said) = ended
    assert (first, second) == (2, 2), ended
    assert said[-1] == sentence
    assert told[-1] == f"{sentence} (process 1)"
    assert not list((tmp_path / "run0").glob(".shared*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator=localhost"], "the coordinator is 'localhost'; it must be HOST:PORT"),
        (["--distributed"], "the other processes are not known: coordinator_address should be"),
        (["--coordinator=localhost:1", "--process_id=2"], "Got process_id=2, num_processes=2"),
    ],
)
def test_wrong_numbers_are_refused(run, flags, message, tmp_path):
    ((status, lines),) = run([f"--workdir={tmp_path / 'run'}", *flags])
    assert status == 2, lines
    assert message in lines[-1]
    assert not (tmp_path / "run").exists()
