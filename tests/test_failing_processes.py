"""Two processes, of which one cannot go on: both end soon, and the same command goes on."""

import signal
import time

import pytest

from resnet_jax.training import train
from tests.failing_process import STEP
from tests.test_processes import finish, start
from tests.tiny import tiny_config, tiny_flags

ABORTED = -signal.SIGABRT  # by jax, because the other has ended
LOST = (75, ABORTED)
SOON = 60.0  # seconds until the last has ended


USUAL = {"total_steps": 4000, "eval_every": 1000, "data.mean": "none", "data.std": "none"}


def options(workdir):
    return [f"--workdir={workdir}", *tiny_flags(**USUAL)]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("faults", "statuses", "message"),
    [
        (["input", "none"], [(1,), LOST], "Input/output error"),
        slow(["none", "input"], [LOST, (1,)], "Input/output error"),
        slow(["none", "step"], [LOST, (1,)], "ZeroDivisionError: in the step"),
        slow(["step", "none"], [(1,), LOST], "ZeroDivisionError: in the step"),
        slow(["arrays", "none"], [(1,), LOST], "No space left on device"),
        slow(["manifest", "none"], [(1,), LOST], "No space left on device"),
        slow(["none", "kill"], [LOST, (-signal.SIGKILL,)], ""),
        slow(["kill", "none"], [(-signal.SIGKILL,), LOST], ""),  # the coordinator
    ],
)
def test_an_end_of_one_ends_both_and_the_same_command_goes_on(tmp_path, faults, statuses, message):
    run, times = tmp_path / "run", [tmp_path / "time0", tmp_path / "time1"]
    processes = start(
        "tests/failing_process.py",
        *options(run),
        before=[(fault, file) for fault, file in zip(faults, times, strict=True)],
    )
    ended, outputs = finish(processes)
    seconds = time.time() - min(float(file.read_text()) for file in times if file.exists())
    print(faults, ended, f"{seconds:.1f} s")
    assert seconds < SOON
    assert all(one in allowed for one, allowed in zip(ended, statuses, strict=True)), outputs
    failed = next(number for number, fault in enumerate(faults) if fault != "none")
    assert message in outputs[failed][1]
    if ended[failed] == 1:
        assert f"train.py: process {failed}: " in outputs[failed][1]
    if ended[1 - failed] == 75:
        assert "train.py: another process has ended; the same command" in outputs[1 - failed][1]

    changes = {**USUAL, "total_steps": STEP + 1}
    assert train(tiny_config(**changes), run).step == STEP + 1


@pytest.mark.slow
def test_an_input_that_one_refuses_before_the_first_step_ends_both_with_its_sentence(tmp_path):
    run = tmp_path / "run"
    statuses, outputs = finish(start("train.py", *options(run), of_second=["--config.seed=-1"]))
    assert statuses == [2, 2], outputs
    assert "(process 1)" in outputs[0][1]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_workdir_that_the_first_refuses_ends_both(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letters").write_text("")
    statuses, outputs = finish(start("train.py", *options(tmp_path / "run")))
    assert statuses == [2, 2], outputs
    sentences = [errors.splitlines()[-1] for _, errors in outputs]
    assert sentences[0].startswith(f"train.py: {tmp_path / 'run'} ")
    assert sentences[1] == f"{sentences[0]} (process 0)"
