"""The launcher with trainers that are a few lines long, and with train.py."""

import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.test_processes import ROOT, rows
from tests.tiny import tiny_flags

LAUNCHER = ROOT / "launch" / "local.py"
STEPS = 120

TRAINER = """
import json, os, pathlib, signal, sys, time
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
number, run = int(flags["process_id"]), pathlib.Path(flags["workdir"])
tries = len(list(run.glob(f"{number}-*")))
(run / f"{number}-{tries}").touch()
def save(step):
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "newest.json").write_text(json.dumps({"step": step}))
def wait_for_the_other():
    while not (run / f"{1 - number}-{tries}").exists():
        time.sleep(0.01)
"""


def start(run, *options, program, flags=(), **environment):
    return subprocess.Popen(
        [
            *(sys.executable, LAUNCHER, *options, f"--program={program}"),
            *("--", f"--workdir={run}", *flags),
        ],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Trainers:
    """Two processes of the trainer above, which goes on as a test says."""

    def __init__(self, folder):
        self.run, self.file = folder / "run", folder / "trainer.py"
        self.run.mkdir()

    def start(self, body, restarts, **environment):
        self.file.write_text(TRAINER + body)
        program = shlex.join([sys.executable, str(self.file)])
        options = ["--processes=2", f"--restarts={restarts}"]
        return start(self.run, *options, program=program, **environment)

    def launch(self, body, restarts=0, **environment):
        """Returns the status, what the trainers printed, and what the launcher said."""
        launcher = self.start(body, restarts, **environment)
        out, errors = launcher.communicate(timeout=60)
        said = errors.splitlines()
        assert all(line.startswith("launch: ") for line in said), errors
        return launcher.returncode, out.splitlines(), [line[8:] for line in said]

    def tries(self):
        return [len(list(self.run.glob(f"{number}-*"))) for number in range(2)]


@pytest.fixture
def trainers(tmp_path):
    return Trainers(tmp_path)


def test_processes_are_told_of_one_another_and_end_with_0(trainers):
    status, out, said = trainers.launch(
        "print(flags['coordinator'], flags['num_processes']); print('error', file=sys.stderr)",
        restarts=3,
    )
    assert (status, said, trainers.tries()) == (0, [], [1, 1])
    assert sorted(line for line in out if "error" in line) == ["[0] error", "[1] error"]
    first, second = sorted(line for line in out if "error" not in line)
    assert re.fullmatch(r"\[0\] localhost:\d+ 2", first)
    assert second[3:] == first[3:]


@pytest.mark.parametrize(
    ("fails", "status", "how"),
    [
        ("sys.exit(3)", 3, "status 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "SIGKILL"),
        ("os.abort()", 134, "SIGABRT"),
    ],
)
def test_a_failure_of_one_ends_and_restarts_all_a_number_of_times(trainers, fails, status, how):
    body = f"wait_for_the_other()\nif number == 1:\n    {fails}\ntime.sleep(60)"
    ended, _, said = trainers.launch(body, restarts=2)
    assert (ended, trainers.tries()) == (status, [3, 3])
    first = f"process 1 has ended first, by {how}"
    assert said == [
        first,
        "starting again from the beginning (restart 1 of 2)",
        first,
        "starting again from the beginning (restart 2 of 2)",
        first,
        "not started again: 2 restarts have brought no new checkpoint",
    ]


@pytest.mark.parametrize("status", [2, 130])
def test_wrong_input_and_ctrl_c_are_not_started_again(trainers, status):
    body = f"wait_for_the_other()\nif number == 0:\n    sys.exit({status})\ntime.sleep(60)"
    ended, _, said = trainers.launch(body, restarts=3)
    assert (ended, trainers.tries()) == (status, [1, 1])
    assert said == [f"process 0 has ended first, by status {status}"]


@pytest.mark.parametrize("other", ["os.kill(os.getpid(), signal.SIGSTOP)", "time.sleep(60)"])
def test_one_that_is_stopped_or_ignores_sigterm_is_killed(trainers, other):
    body = f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if number == 0:
    {other}
wait_for_the_other()
sys.exit(75)
"""
    begin = time.monotonic()
    status, _, said = trainers.launch(body)
    assert 5 < time.monotonic() - begin < 15
    assert status == 75
    assert said[:2] == [
        "process 1 has ended first, by status 75",
        "process 0 does not end, and is killed",
    ]


def test_restarts_are_counted_from_the_newest_checkpoint(trainers):
    body = """
wait_for_the_other()
if tries < 4 and number == 0:
    save(10 * tries)
    sys.exit(75)
sys.exit(0 if tries == 4 else time.sleep(60))
"""
    status, _, said = trainers.launch(body, restarts=1)
    assert (status, trainers.tries()) == (0, [5, 5])
    assert said[1::2] == [f"starting again from step {10 * i} (restart 1 of 1)" for i in range(4)]


def test_the_rest_may_finish_when_one_is_done_and_a_later_failure_counts(trainers):
    body = "time.sleep(number)\nsys.exit(7 if number and not tries else 0)"
    status, _, said = trainers.launch(body, restarts=1)
    assert (status, trainers.tries()) == (0, [2, 2])
    assert said[0] == "process 1 has ended first, by status 7"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_on_and_nothing_starts_again(trainers, number):
    body = f"""
caught = []
signal.signal({int(number)}, lambda number, frame: caught.append(number))
print("ready", flush=True)
while not caught:
    time.sleep(0.01)
time.sleep(number)
print("saved", caught)
sys.exit(75)
"""
    before = signal.signal(number, signal.SIG_DFL)  # not ignored, as it may be here, under nohup
    launcher = trainers.start(body, restarts=3)
    signal.signal(number, before)
    assert {launcher.stdout.readline() for _ in range(2)} == {"[0] ready\n", "[1] ready\n"}
    launcher.send_signal(number)
    out, _ = launcher.communicate(timeout=30)
    assert launcher.returncode == 75
    assert out.splitlines() == [f"[{i}] saved [{int(number)}]" for i in range(2)]
    assert trainers.tries() == [1, 1]


def test_gpus_are_divided(trainers):
    body = "print(os.environ['CUDA_VISIBLE_DEVICES'])"
    _, out, _ = trainers.launch(body, CUDA_VISIBLE_DEVICES="4,5,6,7")
    assert sorted(out) == ["[0] 4,5", "[1] 6,7"]
    launcher = trainers.start(body, 0, CUDA_VISIBLE_DEVICES="4,5,6")
    assert "2 processes cannot share 3 GPUs equally" in launcher.communicate()[1]
    assert launcher.returncode == 2


def test_the_launcher_does_not_import_jax():
    script = f"import runpy, sys; runpy.run_path({str(LAUNCHER)!r}); print('jax' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"


PROGRAM = f"{sys.executable} {ROOT / 'train.py'}"
SETTING = {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
FLAGS = tiny_flags(
    **{
        "total_steps": STEPS,
        "eval_every": STEPS,
        "checkpoint_every": 20,
        "data.mean": "none",
        "data.std": "none",
    }
)


def wait_for_checkpoint(run, launchers):
    newest = run / "checkpoints" / "newest.json"
    while not newest.exists():
        assert all(launcher.poll() is None for launcher in launchers)
        time.sleep(0.05)


def child(launcher, number):
    """Returns the process number of a trainer, by the order of their start."""
    path = pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    return sorted(map(int, path.read_text().split()))[number]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The log of a run of two processes that nothing disturbs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    launcher = start(run, "--processes=2", program=PROGRAM, flags=FLAGS, **SETTING)
    out, said = launcher.communicate(timeout=200)
    assert (launcher.returncode, said) == (0, ""), out
    assert "[0] " in out
    return rows(run)


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first of these tests waits for the run above, too
@pytest.mark.parametrize(("number", "sent"), [(0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_two_processes_of_train_py_end_as_if_undisturbed(tmp_path, whole, number, sent):
    run = tmp_path / "run"
    launcher = start(run, "--processes=2", program=PROGRAM, flags=FLAGS, **SETTING)
    wait_for_checkpoint(run, [launcher])
    os.kill(child(launcher, number), sent)
    begin = time.monotonic()
    out, said = launcher.communicate(timeout=200)
    print(said, f"{time.monotonic() - begin:.1f} s until the end of the run")
    assert launcher.returncode == 0, out
    assert "starting again from step" in said
    assert rows(run) == whole


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [0, 1])
def test_launchers_on_several_hosts_find_one_another_again(tmp_path, whole, number):
    run = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"--coordinator=localhost:{free.getsockname()[1]}"
    launchers = [
        start(
            run,
            program=PROGRAM,
            flags=[*FLAGS, address, "--num_processes=2", f"--process_id={i}"],
            **SETTING,
        )
        for i in range(2)
    ]
    wait_for_checkpoint(run, launchers)
    os.kill(child(launchers[number], 0), signal.SIGKILL)
    outputs = [launcher.communicate(timeout=200) for launcher in launchers]
    print(*(said for _, said in outputs))
    assert [launcher.returncode for launcher in launchers] == [0, 0], outputs
    assert rows(run) == whole
