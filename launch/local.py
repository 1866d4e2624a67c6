"""Runs N processes of train.py on one machine, and starts all again when one of them fails.

    python launch/local.py --processes 2 -- --workdir W [--config configs/NAME.py ...]

After `--` stand the flags of train.py. The processes share the devices of the machine that each
sees: on GPUs, set CUDA_VISIBLE_DEVICES, which is divided among them. With one process (the default)
no flag is added, so that a host of a pod runs its process as
`python launch/local.py -- --distributed --workdir W ...`.

When a process ends with another status than 0, the rest is ended, by SIGKILL after 5 seconds. All
start again from the newest checkpoint, unless the status of the first that ended is 0 (done), 2
(wrong input) or 130 (Ctrl-C), a signal was passed on, or the last `--restarts` restarts brought no
new checkpoint. The exit status is the one of the first process that ended with another than 0.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import queue
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

from etils import epath

_FINAL = (0, 2, 130)
_GRACE = 5.0  # seconds from SIGTERM to SIGKILL
_FINISH = 60.0  # seconds that the rest may take once a process has ended with 0
_PAUSE = 2.0  # seconds before all start again, for each restart without a new checkpoint
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_TRAIN = shlex.join([sys.executable, str(pathlib.Path(__file__).resolve().parents[1] / "train.py")])


def main(arguments: list[str]) -> int:
    """Runs the processes until they are done or not to be started again; returns the status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--restarts", type=int, default=3, help="without a new checkpoint")
    parser.add_argument("--program", default=_TRAIN, help="the command before the flags")
    parser.add_argument("flags", nargs="*", help="the flags of train.py, after --")
    given = parser.parse_args(arguments)
    devices = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if given.processes < 1 or len(devices) % given.processes:
        parser.error(f"{given.processes} processes cannot share {len(devices)} GPUs equally")
    workdir = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    workdir.add_argument("--workdir", "-workdir")
    workdir = workdir.parse_known_args(given.flags)[0].workdir

    signals: list[int] = []
    for number in _PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, lambda number, frame: signals.append(number))
    step, failures = _newest_step(workdir), 0
    while True:
        status = _run(given.program, given.processes, given.flags, devices, signals)
        if status in _FINAL or signals:
            return status
        before, step = step, _newest_step(workdir)
        failures = failures + 1 if step == before else 1
        if failures > given.restarts:
            _say(f"not started again: {given.restarts} restarts have brought no new checkpoint")
            return status
        point = "the beginning" if step is None else f"step {step}"
        _say(f"starting again from {point} (restart {failures} of {given.restarts})")
        wake = time.monotonic() + (failures - 1) * _PAUSE
        while time.monotonic() < wake and not signals:
            time.sleep(0.1)
        if signals:
            return status


def _newest_step(workdir: str | None) -> int | None:
    """Returns the step of a run's newest checkpoint; None if there is none to be read."""
    if workdir is None:
        return None
    with contextlib.suppress(Exception):  # of whatever holds the workdir; train.py will say it
        path = epath.Path(workdir).expanduser() / "checkpoints" / "newest.json"
        return json.loads(path.read_text())["step"]
    return None


def _run(program: str, count: int, flags: list[str], devices: list[str], signals: list[int]) -> int:
    """Runs the processes until all have ended; returns the status of the first that failed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    share = len(devices) // count
    processes, threads = [], []
    ended: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    for number in range(count):
        command, environment = [*shlex.split(program), *flags], dict(os.environ)
        if count > 1:
            command += [f"--coordinator=localhost:{port}", f"--num_processes={count}"]
            command += [f"--process_id={number}"]
        if devices:
            own = devices[number * share : (number + 1) * share]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,  # a terminal's Ctrl-C reaches it through this process alone
        )
        processes.append(process)
        threads += [
            threading.Thread(target=_print_lines, args=(number, process), daemon=True),
            threading.Thread(
                target=lambda i, one: ended.put((i, one.wait())), args=(number, process)
            ),
        ]
    for thread in threads:
        thread.start()

    first, passed_on, deadline, running = 0, 0, None, set(range(count))
    while running:
        with contextlib.suppress(queue.Empty):
            number, code = ended.get(timeout=0.1)
            running.remove(number)
            if code and not first:
                first = code if code > 0 else 128 - code
                how = f"status {code}" if code > 0 else signal.Signals(-code).name
                _say(f"process {number} has ended first, by {how}")
                if not signals:
                    _send(processes, signal.SIGTERM)
                deadline = time.monotonic() + _GRACE
            elif deadline is None:
                deadline = time.monotonic() + _FINISH
        for number in signals[passed_on:]:
            _send(processes, number)
            passed_on += 1
        if deadline is not None and time.monotonic() > deadline:
            for number in sorted(running):
                _say(f"process {number} does not end, and is killed")
            _send(processes, signal.SIGKILL)
            deadline = math.inf
    for thread in threads:
        thread.join(1)  # a process may have left its output to one that goes on
    return first


def _print_lines(number: int, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError), process.stdout as lines:
        for line in lines:
            print(f"[{number}] {line.rstrip()}", flush=True)


def _send(processes: list[subprocess.Popen[str]], number: int) -> None:
    for process in processes:
        process.send_signal(number)  # nothing happens to one that has ended


def _say(message: str) -> None:
    print(f"launch: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
