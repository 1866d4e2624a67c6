"""Runs that are killed many times: `PYTHONPATH=. python benchmarks/faults.py --out FILE`.

Trainers of the tiny run of tests/tiny.py, in processes of their own, are killed by SIGKILL, and the
same command goes on. What a run leaves at its end, and the examples of each of its steps, are
compared with those of a run that was not disturbed. Of three moments one is aimed at a phase of the
process, one at a phase or uniform over its life, and one comes soon after its start.

- `one`: one process with 2 devices.
- `two`: two processes with 2 devices each, of which either is killed; the other ends by itself.
- `points`: each named point of tests/faults.
- `ends`: seconds from a fault of one of two processes until the last has ended, with
  launch/local.py and without.

The file is written after each run that was compared, and the same command goes on from it.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import turns

from tests import examples
from tests.examples import Record, Taken
from tests.faults import AFTER, FAULTS, Fault
from tests.faults.phases import NAMES, Phases
from tests.faults.test_evaluations import KILLS, PLATEAU
from tests.launcher import Launcher, Trainer
from tests.outcomes import Outcome
from tests.test_processes import ROOT, start
from tests.tiny import tiny_flags

Result = dict[str, Any]
Report = Callable[[], None]

SETTINGS = {"total_steps": 60, "checkpoint_every": 8, "eval_every": 20}
JOIN = "--join_timeout=20"  # so long a process waits for one that was killed before it joined
PATIENCE = 300.0  # seconds
KILLS_OF_A_RUN = 10
ONCE = ("restore", "first step", "step")  # phases that begin once in a life

LONG = {"total_steps": 4000, "eval_every": 1000, "data.mean": "none", "data.std": "none"}
PHASES = ("step", "input", "save", "evaluation")
SET = [*(f"--config.timeouts.{name}=10" for name in PHASES)]  # a heartbeat's is 10 by default
ENDS = ("kill@0", "kill@1", "step@0", "step@1", "input@0", "input@1", "arrays@0", "manifest@0")
HANGS = ("stop@0", "stop@1", "hanging input@0", "hanging input@1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="one,two,points,ends")
    parser.add_argument("--one", type=int, default=100, help="kills of one process")
    parser.add_argument("--two", type=int, default=30, help="kills of one of two processes")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    given = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    results = json.loads(given.out.read_text())["results"] if given.out.exists() else {}

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
        launcher = Launcher(folder)
        measure = {
            "one": lambda *a: kill_many(launcher, folder / "one", 1, given.one, *a),
            "two": lambda *a: kill_many(launcher, folder / "two", 2, given.two, *a),
            "points": lambda *a: kill_at_points(launcher, folder / "points", *a),
            "ends": lambda *a: time_ends(folder, *a),
        }
        for part in given.parts.split(","):
            before = results.setdefault(part, {})
            measure[part](before, lambda: turns.write(str(given.out), results))


@dataclasses.dataclass
class Life:
    """The processes of one start of a run, and what they write of themselves."""

    trainers: list[Trainer]
    phases: list[Phases]
    records: list[Record]

    def ended(self) -> bool:
        """Whether all processes have ended."""
        return all(trainer.status() is not None for trainer in self.trainers)

    def kill(self, number: int) -> Result | None:
        """Kills a process and waits for the others; returns what happened, None if it had ended."""
        killed = self.trainers[number]
        if killed.status() is not None:
            return None
        killed.send(signal.SIGKILL)
        begin = time.monotonic()
        if killed.wait() != -signal.SIGKILL:
            return None
        others = [trainer for trainer in self.trainers if trainer is not killed]
        statuses = [trainer.wait() for trainer in others]
        return {
            "process": number,
            "phase": self.phases[number].last(),
            "statuses": statuses,
            "seconds": time.monotonic() - begin,
        }


class Lives:
    """The starts of one run."""

    def __init__(self, launcher: Launcher, folder: pathlib.Path, processes: int) -> None:
        folder.mkdir(parents=True)
        self._launcher, self._folder, self._processes = launcher, folder, processes
        self.lives: list[Life] = []

    def start(self, **options: Any) -> Life:
        """Starts it once more."""
        numbers = [f"{len(self.lives)}-{process}" for process in range(self._processes)]
        phases = [Phases(self._folder / f"{number}.phases") for number in numbers]
        records = [Record(self._folder / f"{number}.examples") for number in numbers]
        both = [list(of_process) for of_process in zip(phases, records, strict=True)]
        workdir = self._folder / "run"
        if self._processes == 1:
            trainers = [self._launcher.start(workdir, records=both[0], **options)]
        else:
            trainers = self._launcher.start_pair(workdir, records=both, flags=[JOIN], **options)
        self.lives.append(Life(trainers, phases, records))
        return self.lives[-1]

    def finish(self, **options: Any) -> int:
        """Starts it until it is done; returns how often a process of it ended by itself before.

        A busy machine can make one of two processes wait too long for the other.
        """
        for times in range(5):
            trainers = self.start(**options).trainers
            statuses = [trainer.wait() for trainer in trainers]
            if not any(statuses):
                return times
        raise RuntimeError(f"{statuses}: {[trainer.said() for trainer in trainers]}")

    def end(self) -> tuple[Outcome, list[Taken]]:
        """Returns what the run has left, and the examples that each process took."""
        records = [
            [life.records[process] for life in self.lives] for process in range(self._processes)
        ]
        taken = [examples.merge(examples.read(one.path) for one in of) for of in records]
        return Outcome.of(self._folder / "run"), taken


def differences(one: tuple[Outcome, list[Taken]], other: tuple[Outcome, list[Taken]]) -> list[str]:
    """Returns the names of what differs at the ends of two runs."""
    fields = [field.name for field in dataclasses.fields(Outcome)]
    differ = [name for name in fields if getattr(one[0], name) != getattr(other[0], name)]
    return [*differ, *(["examples"] if one[1] != other[1] else [])]


Wait = Callable[[Life, int], bool]


def moments(random: np.random.Generator, longest: float) -> Iterator[Wait]:
    """Yields functions that wait for a moment in a life; they return False if it ends before."""

    def wait(life: Life, seconds: float, reached: Callable[[], bool] = lambda: True) -> bool:
        while not reached():
            if life.ended():
                return False
            time.sleep(0.001)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not life.ended():
            time.sleep(0.001)
        return not life.ended()

    def at(seconds: float) -> Wait:
        return lambda life, process: wait(life, seconds)

    def within(name: str, times: int, seconds: float) -> Wait:
        return lambda life, process: wait(
            life, seconds, lambda: life.phases[process].begun(name) >= times
        )

    def aimed() -> Wait:
        name = str(random.choice(NAMES[1:]))
        times = 1 if name in ONCE else int(random.integers(1, 4))
        return within(name, times, random.uniform(0, 0.05))

    while True:
        yield aimed()
        yield at(random.uniform(0, longest)) if random.random() < 0.5 else aimed()
        yield at(random.uniform(0, longest / 3))


def kill_many(
    launcher: Launcher,
    folder: pathlib.Path,
    processes: int,
    kills: int,
    result: Result,
    report: Report,
) -> None:
    """Kills runs until there are as many kills, and compares each run at its end."""
    if not result:
        result |= {"kills": 0, "of_process": [0] * processes, "after_another": 0, "runs": 0}
        result["ended_by_themselves"] = 0
        result |= {"mismatches": [], "phases": dict.fromkeys(NAMES, 0)}
        result |= {"seconds_of_the_other": [], "statuses_of_the_other": {}} if processes > 1 else {}
    for number in itertools.count():
        whole = Lives(launcher, folder / f"whole{number}", processes)
        begin = time.monotonic()
        disturbed = whole.finish(**SETTINGS)
        longest = time.monotonic() - begin
        if number and not disturbed:  # the first one compiles
            break
    expected = whole.end()
    random = np.random.default_rng([processes, result["kills"]])
    waits = moments(random, longest)
    while result["kills"] < kills:
        run = Lives(launcher, folder / str(result["runs"]), processes)
        found: list[Result] = []
        most = min(KILLS_OF_A_RUN, kills - result["kills"])
        while len(found) < most:
            life, process = run.start(**SETTINGS), int(random.integers(processes))
            killed = life.kill(process) if next(waits)(life, process) else None
            if killed is not None:
                found.append(killed)
            elif not any(trainer.wait() for trainer in life.trainers):
                break  # it was done before
            else:
                result["ended_by_themselves"] += 1
        else:
            result["ended_by_themselves"] += run.finish(**SETTINGS)
        result["runs"] += 1
        result["kills"] += len(found)
        result["after_another"] += max(len(found) - 1, 0)
        for one in found:
            result["phases"][one["phase"]] += 1
            result["of_process"][one["process"]] += 1
            for status in one["statuses"]:
                statuses = result["statuses_of_the_other"]
                statuses[str(status)] = statuses.get(str(status), 0) + 1
                result["seconds_of_the_other"].append(round(one["seconds"], 1))
        if different := differences(run.end(), expected):
            result["mismatches"].append(different)
        report()
        print(f"{result['kills']} kills, {result['mismatches']}, {result['phases']}", flush=True)


def kill_at_points(
    launcher: Launcher, folder: pathlib.Path, result: Result, report: Report
) -> None:
    """Kills a run at each named point, and compares it at its end."""
    points: dict[str, tuple[list[Fault], Mapping[str, object]]] = {
        name: ([*([FAULTS[AFTER[name]]] if name in AFTER else []), fault], {})
        for name, fault in FAULTS.items()
    }
    points |= {f"evaluation, {name}": ([fault], PLATEAU) for name, fault in KILLS.items()}
    result.setdefault("points", [])
    result.setdefault("mismatches", [])
    expected = {}
    for number, (name, (faults, options)) in enumerate(points.items()):
        if name in result["points"]:
            continue
        key = str(options)
        if key not in expected:
            whole = Lives(launcher, folder / f"whole{number}", 1)
            whole.finish(**options)
            expected[key] = whole.end()
        run = Lives(launcher, folder / str(number), 1)
        for fault in faults:
            if run.start(fault=fault, **options).trainers[0].wait() != -signal.SIGKILL:
                raise RuntimeError(f"{name} was not reached")
        run.finish(**options)
        result["points"].append(name)
        if different := differences(run.end(), expected[key]):
            result["mismatches"].append([name, *different])
        report()
        print(f"{name}: {different or 'equal'}", flush=True)


def time_ends(folder: pathlib.Path, result: Result, report: Report) -> None:
    """Measures the time from a fault of one of two processes until the last has ended."""
    cases = [(fault, "set") for fault in (*HANGS, "kill@0", "kill@1")]
    cases += [(fault, "default") for fault in (*HANGS, *ENDS)]
    for fault, times in cases:
        for launched in (False, True):
            name = f"{fault}, {times} times, {'launcher' if launched else 'alone'}"
            if name not in result:
                place = folder / f"end{len(result)}"
                place.mkdir()
                result[name] = time_end(place, fault, SET if times == "set" else [], launched)
                report()
                print(name, result[name], flush=True)


def time_end(folder: pathlib.Path, fault: str, times: list[str], launched: bool) -> Result:
    """Returns the seconds until each process has ended, and who is named by what they print.

    A process that is stopped ends under the launcher alone.
    """
    run, file = folder / "run", folder / "time"
    flags = [f"--workdir={run}", *tiny_flags(**LONG), *times]
    program = "tests/failing_process.py"
    if launched:
        command = shlex.join([sys.executable, str(ROOT / program), fault, str(file)])
        arguments = ["--processes=2", "--restarts=0", f"--program={command}", "--", *flags]
        processes = [
            subprocess.Popen(
                [sys.executable, ROOT / "launch" / "local.py", *arguments],
                env={**os.environ, "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        ]
    else:
        processes = start(program, *flags, before=[(fault, file)] * 2)
    stopped = None if launched or "stop" not in fault else int(fault[-1])
    waited = [process for number, process in enumerate(processes) if number != stopped]
    outputs = []
    try:
        for process in waited:
            outputs += process.communicate(timeout=PATIENCE)
        seconds = round(time.time() - float(file.read_text()), 1) if file.exists() else None
    except subprocess.TimeoutExpired:
        seconds = None
    finally:
        for process in processes:
            process.kill()
    # In jax's words: numbers of silent processes on lines of their own, and the leader.
    text = re.sub(r"^\[\d\] ", "", "\n".join(outputs).replace(str(folder), "W"), flags=re.MULTILINE)
    text = re.sub(r"(stopped sending heartbeats\)):\s+", r"\1: process ", text)
    text = text.replace("Either the leader task", "Either the leader task (process 0)")
    named = [line for line in text.splitlines() if re.search(rf"process {fault[-1]}\b", line)]
    says = re.sub(r"^.*(The following tasks|Either the)", r"\1", named[-1]) if named else ""
    return {"seconds": seconds, "statuses": [p.returncode for p in waited], "says": says[:200]}


if __name__ == "__main__":
    main()
