"""What the training loop costs over the bare step: `python benchmarks/loop.py`.

The peer is the same step on a batch that is on the device already, two steps ahead at most, and
nothing else. Loop and peer take turns in one process; printed are the medians and the ratio. The
loop reads, augments and sends its batches, logs, and shows its progress; evaluations, checkpoints
and drawing happen every few thousand steps, are no part of a step, and are left out.
"""

import argparse
import collections
import contextlib
import importlib.util
import io
import pathlib
import statistics
import tempfile
import time

import jax

from resnet_jax.training import loop, train
from resnet_jax.training.journal import Journal
from resnet_jax.training.run import Run

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
SKIPPED = 5  # steps at the start, which compile and fill the queue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="digits", help="a file of configs/, without .py")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()

    spec = importlib.util.spec_from_file_location("config", CONFIGS / f"{arguments.config}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.total_steps = arguments.steps
    config.eval_every = config.checkpoint_every = 10 * arguments.steps

    loops, peers = [], []
    for turn in range(arguments.turns):
        loops.append(seconds_of_loop(config))
        peers.append(seconds_of_step(config))
        print(
            f"turn {turn + 1}: loop {1e3 * loops[-1]:.2f} ms a step, bare step "
            f"{1e3 * peers[-1]:.2f} ms, ratio {loops[-1] / peers[-1]:.4f}",
            flush=True,
        )
    ratio = statistics.median(a / b for a, b in zip(loops, peers, strict=True))
    print(
        f"{config.model.name}, batch {config.batch_size}, {jax.device_count()} x "
        f"{jax.devices()[0].device_kind}: loop {1e3 * statistics.median(loops):.2f} ms, bare step "
        f"{1e3 * statistics.median(peers):.2f} ms, median ratio {ratio:.4f}"
    )


def seconds_of_loop(config) -> float:
    """Returns the mean time of a step in the loop, when the device has taken it."""
    times = []

    class Timed(Journal):
        def advance(self, step: int) -> None:
            super().advance(step)
            times.append(time.perf_counter())

    original, loop.Journal = loop.Journal, Timed
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            train(config, pathlib.Path(folder) / "run")
    finally:
        loop.Journal = original
    return (times[-1] - times[SKIPPED]) / (len(times) - 1 - SKIPPED)


def seconds_of_step(config) -> float:
    """Returns the mean time of the step alone."""
    run = Run.from_config(config)
    step = run.train_step(run.measure_statistics())
    state = run.replicas.place(run.init_state())
    batch = run.replicas.shard(next(run.batches(0)))
    times, ahead = [], collections.deque()
    for _ in range(config.total_steps):
        state, metrics = step(state, batch)
        ahead.append(metrics["loss"])
        if len(ahead) > 2:
            ahead.popleft().block_until_ready()
        times.append(time.perf_counter())
    return (times[-1] - times[SKIPPED]) / (len(times) - 1 - SKIPPED)


if __name__ == "__main__":
    main()
