"""Everything that waits for a GPU, from a copy of the tree on a machine without network.

    pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site python benchmarks/accelerator.py --parts b,e --seconds 540 --out OUT

The machine has Python 3.12 or newer with jax[cuda], flax, optax, orbax, torch, torchvision; of this
project's requirements it may lack ml_collections and google-crc32c (0.1 MB); their wheels are
carried. Part e also needs CIFAR-10 as a folder of images `{train,test}/<class>/*`, or a tar file of
it: `--cifar PATH`.

The parts, each with a JSON file in OUT that is written after every measurement, so that nothing is
lost when the machine is taken away:

    b  ResNet-50, bfloat16, batch 256: training and inference, ours beside torch and flax's example
    e  the runs of figure 6 on CIFAR-10 by `train.py`, two at a time; each run's state is in OUT as
       a tar file, from which `--states OUT` goes on
    d  20 steps twice, equal by bit or not, with and without deterministic kernels, and the cost
    c  the kernels that take most of the time of a training step
    a  the fast form of networks against the plain one, as `forms.py`
    f  the plain form, the bare step of the CIFAR-10 networks, other batches, float32, shard_map,
       flags of XLA

`--seconds` is for all parts together: part e stops its run in time, saves it and keeps it; of the
others the measurement that does not end in time is given up. `--small` rehearses it on a CPU.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import forms
import step
import turns

ROOT = pathlib.Path(__file__).resolve().parents[1]
RUNS = ("plain20", "resnet20", "plain56", "resnet56", "plain110", "resnet110")
PEERS = ("ours", "torch_compiled", "torch", "flax")
FLAGS = (
    "--xla_gpu_enable_latency_hiding_scheduler=true",
    "--xla_gpu_experimental_enable_conv_fusion=true",
    "--xla_gpu_autotune_level=5",
    "--xla_gpu_enable_command_buffer=",
)
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="b,e", help="in this order, separated by commas")
    parser.add_argument("--seconds", type=float, default=540, help="for all parts together")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--cifar", type=pathlib.Path, help="folder of images, or a tar file of it")
    parser.add_argument("--peers", default=",".join(PEERS), help="of part b")
    parser.add_argument("--runs", default=",".join(RUNS), help="of part e; plain20-1 has seed 1")
    parser.add_argument("--together", type=int, default=2, help="runs of part e at a time")
    parser.add_argument("--steps", type=int, default=64_000, help="of each run of part e")
    parser.add_argument("--states", type=pathlib.Path, help="folder with the tar files of part e")
    parser.add_argument("--small", action="store_true", help="a rehearsal on a CPU")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds
    arguments.out.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(arguments.out.parent / "xla-cache"))
    for part in arguments.parts.split(","):
        results = {"part": part, "machine": turns.machine(), "results": []}
        path = arguments.out / f"{part}.json"
        match part:
            case "a":
                jobs = differences(arguments, deadline)
            case "e":
                jobs = figure6(arguments, deadline)
            case _:
                jobs = measurements(part, arguments, deadline)
        for result in jobs:
            results["results"].append(result)
            path.write_text(json.dumps(results, indent=1))


def measurements(part: str, arguments: argparse.Namespace, deadline: float) -> Iterator[Any]:
    """Yields the results of the measurements of a part until the time is over."""
    for flags, peer, options in jobs_of(part, arguments):
        left = deadline - time.monotonic()
        if left < 20:
            print(f"{part}: no time for {peer} {' '.join(options)}", flush=True)
            continue
        before = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{before} {flags}".strip()
        result = step.in_a_process(peer, options, timeout=left)
        os.environ["XLA_FLAGS"] = before
        print(f"{part}: {' '.join(options)} {flags}\n   {step.describe(result)}", flush=True)
        if "--profile" in options and "failed" not in result:
            result["kernels"] = kernels(pathlib.Path(options[options.index("--profile") + 1]))
        yield result


def differences(arguments: argparse.Namespace, deadline: float) -> Iterator[turns.Result]:
    """Yields how far the forms of each network differ."""
    for name in forms.NETWORKS[: 1 if arguments.small else None]:
        command = [sys.executable, forms.__file__, "--networks", name, "--batch", "4"]
        result = turns.measure(command, timeout=max(deadline - time.monotonic(), 1))
        print(f"a: {name}: {result}", flush=True)
        yield {"network": name, **result}


def jobs_of(part: str, arguments: argparse.Namespace) -> Iterator[tuple[str, str, list[str]]]:
    """Yields flags for XLA, the peer and the options of each measurement."""
    batch, size, seconds = ("4", "64", "1") if arguments.small else ("256", "224", "6")

    def job(peer: str, *options: str, flags: str = "") -> tuple[str, str, list[str]]:
        usual = ["--batch", batch, "--size", size, "--seconds", seconds]
        return flags, peer, [*usual, *options]

    match part:
        case "b":
            for task in ("train", "infer"):
                for peer in arguments.peers.split(","):
                    yield job(peer, "--task", task)
        case "c":
            yield job("ours", "--profile", str(arguments.out.parent / "profile"))
        case "d":
            for flags in ("", "", DETERMINISTIC, DETERMINISTIC):
                yield job("ours", "--steps", "20", flags=flags)
        case "f":
            for task in ("train", "infer"):
                yield job("ours_plain", "--task", task)
            for depth in (20, 56, 110):
                options = ("--model", f"cifar_resnet{depth}", "--batch", "128", "--size", "32")
                yield job("ours", *options, "--dtype", "float32", "--set", "bn_group_size=64")
            for other in ("64", "512", "1024"):
                yield job("ours", "--batch", other)
                yield job("ours", "--task", "infer", "--batch", other)
            yield job("ours", "--dtype", "float32")
            yield job("ours", "--set", "parallel=shard_map")
            for flags in FLAGS:
                yield job("ours", flags=flags)
        case _:
            raise SystemExit(f"there is no part {part!r}; the parts are b, e, d, c, a and f")


def kernels(folder: pathlib.Path, most: int = 200) -> list[dict[str, Any]]:
    """Returns the kernels of a profile that took most time, in milliseconds of all its steps."""
    import jax

    totals: dict[str, list[float]] = {}
    for path in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            if not plane.name.startswith("/device:GPU"):
                continue
            for line in plane.lines:
                if not line.name.startswith("Stream"):
                    continue
                for event in line.events:
                    total = totals.setdefault(event.name, [0.0, 0])
                    total[0] += event.duration_ns / 1e6
                    total[1] += 1
    ordered = sorted(totals.items(), key=lambda item: -item[1][0])
    rest = sum(time for _, (time, _) in ordered[most:])
    table = [{"kernel": n[:200], "milliseconds": t, "calls": c} for n, (t, c) in ordered[:most]]
    return [*table, {"kernel": "all others", "milliseconds": rest, "calls": len(ordered[most:])}]


def figure6(arguments: argparse.Namespace, deadline: float) -> Iterator[dict[str, Any]]:
    """Trains the networks of figure 6, some at a time; yields the log of each."""
    work = arguments.out.parent / "figure6"
    work.mkdir(exist_ok=True)
    data = images(arguments.cifar, work / "cifar")

    def run(name: str) -> dict[str, Any]:
        left, workdir, log = deadline - time.monotonic(), work / name, work / f"{name}.log"
        if left < 45:
            return {"run": name, "failed": "no time"}
        state = arguments.states and arguments.states / f"{name}.tar"
        if state and state.exists() and not workdir.exists():
            with tarfile.open(state) as tar:
                tar.extractall(work, filter="data")
        network, _, seed = name.partition("-")
        options = {
            "seed": int(seed or 0),
            "data.source": "folder",
            "data.path": data,
            "total_steps": arguments.steps,
            "schedule.boundaries": (arguments.steps // 2, arguments.steps * 3 // 4),
            "checkpoint_every": arguments.steps // 8,
            "keep_newest": 1,
            "keep_best": 0,
        }
        if arguments.small:
            options |= {"batch_size": 64, "log_every": 1, "eval_every": 4, "checkpoint_every": 4}
            options |= {"data.eval_split": "test[:1000]", "schedule.warmup_steps": 0}
        command = [
            *(sys.executable, str(ROOT / "train.py"), "--workdir", str(workdir)),
            f"--config={ROOT / 'configs' / 'cifar10.py'}:{network}",
            *(f"--config.{key}={value}" for key, value in options.items()),
        ]
        started = time.monotonic()
        status = stoppable(command, log, left - 20)
        seconds = time.monotonic() - started
        metrics = workdir / "metrics.jsonl"
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        with tarfile.open(arguments.out / f"{name}.tar", "w") as tar:
            if workdir.exists():
                tar.add(workdir, name)
            tar.add(log, log.name)
        print(f"e: {name}: status {status}, {seconds:.0f} s, {lines[-1:]}", flush=True)
        values = [json.loads(line) for line in lines]
        return {"run": name, "status": status, "seconds": seconds, "metrics": values}

    with concurrent.futures.ThreadPoolExecutor(arguments.together) as pool:
        yield from pool.map(run, arguments.runs.split(","))


def stoppable(command: list[str], log: pathlib.Path, seconds: float) -> int:
    """Runs a command, and asks it to save and end after so many seconds; returns its status."""
    with log.open("a") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            try:
                return process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait()


def images(path: pathlib.Path | None, unpacked: pathlib.Path) -> pathlib.Path:
    """Returns the folder of images; a tar file is unpacked."""
    if path is None:
        raise SystemExit(
            "part e needs --cifar: a folder {train,test}/<class>/*, or a tar file of it"
        )
    if path.is_dir():
        return path
    if not unpacked.exists():
        partial = unpacked.with_name("partial")
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(path) as tar:
            tar.extractall(partial, filter="data")
        partial.rename(unpacked)
    return unpacked


if __name__ == "__main__":
    main()
