"""Seconds until something happens, each time in a new process: `python benchmarks/startup.py`.

    python benchmarks/startup.py --turns 5 --before 3111d32 --out startup.json

- "import": `import resnet_jax` and `create_model` after `import jax, flax`, beside the latter.
- "init": the random variables of ResNet-50 (of training first), beside torchvision's, without the
  imports.
- "digits": `train.py` with no config, to the end of its first step, without a compilation cache,
  with an empty one and with the one that the run before has filled; then the whole command.
- "resnet50": the same first step of ResNet-50 at 224 pixels, batch 8, which digits stand in for.

With `--before COMMIT` the same is run in that commit's files (the package must not be installed
otherwise than from this folder). Rows take turns, and medians are printed. Processor time is summed
over all threads. "ratio" is that of a row over that of the first one of its part, or of a commit's
row over the same row of this folder.
"""

import argparse
import functools
import os
import pathlib
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import NoReturn

import turns
from turns import Result

ROOT = pathlib.Path(__file__).resolve().parents[1]
PARTS = ("import", "init", "digits", "resnet50")

Job = Callable[[pathlib.Path, pathlib.Path], Result]
"""Measures in a tree of this project, with a folder for files of its own."""

CREATE = "from resnet_jax import create_model; model = create_model('resnet50')"
FORM = """
import json, time
{before}
wall, processor = time.perf_counter(), time.process_time()
{timed}
wall, processor = time.perf_counter() - wall, time.process_time() - processor
print(json.dumps({{"seconds": wall, "processor_seconds": processor}}))
"""
BEFORE_INIT = f"""
import functools, jax
from resnet_jax.config import base_config
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.state import init_state
{CREATE}
init = functools.partial(model.init, train=False)
inputs = jax.random.key(0), jax.numpy.zeros((1, 224, 224, 3))
optimizer = make_optimizer(base_config().optimizer)
"""
RESNET50 = (
    *("--config.model.name=resnet50", "--config.model.width=64", "--config.data.augment=none"),
    *("--config.data.image_size=224", "--config.batch_size=8"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--before", metavar="COMMIT", help="an earlier commit to compare with")
    parser.add_argument("--out", help="file for the results, as JSON")
    parser.add_argument("--first-step", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first_step is not None:
        take_first_step(arguments.first_step)
    with tempfile.TemporaryDirectory() as scratch:
        trees = {"": ROOT}
        if arguments.before:
            trees[f" at {arguments.before}"] = unpack(arguments.before, pathlib.Path(scratch))
        found: dict[str, Result] = {}
        for part in arguments.parts.split(","):
            jobs = {
                f"{name}{at}": functools.partial(job, root, pathlib.Path(scratch))
                for name, job in rows_of(part)
                for at, root in trees.items()
            }
            results = turns.by_turns(jobs, arguments.turns, describe)
            print(comparison(results))
            found |= {f"{part}: {name}": result for name, result in results.items()}
            turns.write(arguments.out, found)


def rows_of(part: str) -> Iterator[tuple[str, Job]]:
    """Yields the name and the measurement of each row of a part."""

    def script(timed: str, before: str = "") -> Job:
        command = ["-P", "-c", FORM.format(before=before, timed=timed)]  # -P: not from this folder
        return lambda root, scratch: turns.measure(
            [sys.executable, *command], environment=environment(root)
        )

    def training(*flags: str, cache: str | None = None, first_step: bool = True) -> Job:
        def run(root: pathlib.Path, scratch: pathlib.Path) -> Result:
            programs = scratch / f"cache-{root.name}"
            if cache == "empty":
                shutil.rmtree(programs, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                of_cache = [f"--config.compilation_cache={programs}"] * bool(cache)
                command = [str(root / "train.py"), f"--workdir={folder}/run", *of_cache, *flags]
                return spent(root, [__file__, "--first-step", *command] if first_step else command)

        return run

    match part:
        case "import":
            yield "import jax, flax", script("import jax, flax")
            yield "then resnet_jax, create_model", script(CREATE, "import jax, flax")
        case "init":
            yield (
                "init_state",
                script(
                    "jax.block_until_ready(init_state(model, optimizer, (224, 224, 3), 0))",
                    BEFORE_INIT,
                ),
            )
            yield "model.init", script("jax.block_until_ready(init(*inputs))", BEFORE_INIT)
            in_jit = "jax.block_until_ready(jax.jit(init)(*inputs))"
            yield "jit of model.init", script(in_jit, BEFORE_INIT)
            yield "torchvision", script("torchvision.models.resnet50()", "import torchvision")
        case "digits" | "resnet50":
            flags = RESNET50 if part == "resnet50" else ()
            yield "first step", training(*flags)
            yield "first step, empty cache", training(*flags, cache="empty")
            yield "first step, full cache", training(*flags, cache="full")
            if part == "digits":
                yield "train.py", training(first_step=False)
        case _:
            raise SystemExit(f"there is no part {part!r}; the parts are {', '.join(PARTS)}")


def environment(root: pathlib.Path) -> dict[str, str]:
    """Returns the variables with which Python finds the package of a tree, and no cache."""
    return {"PYTHONPATH": str(root), "JAX_COMPILATION_CACHE_DIR": ""}


def spent(root: pathlib.Path, command: list[str]) -> Result:
    """Runs Python in a tree of this project; returns its seconds, or why it failed."""
    try:
        wall, processor, _ = turns.run([sys.executable, *command], environment=environment(root))
    except subprocess.CalledProcessError as error:
        return {"failed": (error.stderr.strip() or "no message").splitlines()[-1]}
    return {"seconds": wall, "processor_seconds": processor}


def take_first_step(command: list[str]) -> NoReturn:
    """Trains by a `train.py`, and ends the process when the first step is done."""
    import jax

    from resnet_jax.data import Statistics
    from resnet_jax.training.run import Run
    from resnet_jax.training.step import TrainStep

    original = Run.train_step

    def train_step(self: Run, statistics: Statistics) -> TrainStep:
        step = original(self, statistics)

        def first(state, batch):
            jax.block_until_ready(step(state, batch))
            os._exit(0)

        return first

    Run.train_step = train_step
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
    raise SystemExit("there was no step")


def unpack(commit: str, folder: pathlib.Path) -> pathlib.Path:
    """Returns a folder with the files of a commit of this project."""
    archive = folder / "commit.tar"
    subprocess.run(["git", "-C", ROOT, "archive", f"--output={archive}", commit], check=True)
    shutil.unpack_archive(archive, folder / "commit", filter="data")
    return folder / "commit"


def describe(name: str, result: Result) -> str:
    """Returns a line about a measurement."""
    if "failed" in result:
        return f"{name}: {result['failed']}"
    return f"{name}: {result['seconds']:.3f} s, {result['processor_seconds']:.3f} processor s"


def comparison(results: dict[str, Result]) -> str:
    """Returns the table of the medians."""
    rows = [["", "s", "processor s", "ratio"]]
    for name, result in results.items():
        of = name.partition(" at ")[0] if " at " in name else next(iter(results))
        first = results[of].get("processor_seconds", float("nan"))
        if "failed" in result:
            rows.append([name, "-", "-", result["failed"][:40]])
            continue
        processor = result["processor_seconds"]
        rows.append(
            [
                name,
                f"{result['seconds']:.3f}",
                f"{processor:.3f}",
                f"{processor / first:.2f}",
            ]
        )
    return turns.table(rows)


if __name__ == "__main__":
    main()
