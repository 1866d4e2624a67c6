"""The cost of the training loop over the bare step: `python benchmarks/loop.py`.

The peer is the same step on a batch that is on the device already, two steps ahead at most, and
nothing else. Loop and peer take turns in one process; printed are the medians and the ratio. The
loop reads, augments and sends its batches, logs, and shows its progress; evaluations, checkpoints
and drawing happen every few thousand steps, are no part of a step, and are left out.

On a machine that others use too, trust the processor time: it is summed over all threads, and waits
for nobody.
"""

import argparse
import collections
import contextlib
import io
import pathlib
import runpy
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple, Self

import jax
from ml_collections import ConfigDict

from resnet_jax.training import loop, train
from resnet_jax.training.logging import Logger
from resnet_jax.training.run import Run

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
SKIPPED = 21  # steps at the start: the first compiles, the first line of the log does too


class Milliseconds(NamedTuple):
    """A time, by the clock and summed over the threads."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> Self:
        """Reads both clocks."""
        return cls(1e3 * time.perf_counter(), 1e3 * time.process_time())

    def __str__(self) -> str:
        return f"{self.wall:.2f} ms ({self.processor:.2f} ms of processors)"


def mean_step(times: Sequence[Milliseconds]) -> Milliseconds:
    steps = len(times) - 1 - SKIPPED
    first, last = times[SKIPPED], times[-1]
    return Milliseconds(*((b - a) / steps for a, b in zip(first, last, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="digits", help="a file of configs/, without .py")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()

    config = runpy.run_path(str(CONFIGS / f"{arguments.config}.py"))["get_config"]()
    config.total_steps = arguments.steps
    config.eval_every = config.checkpoint_every = 10 * arguments.steps

    loops, peers = [], []
    for _ in range(arguments.turns):
        loops.append(milliseconds_of_loop(config))
        peers.append(milliseconds_of_step(config))
        print(f"loop {loops[-1]}, bare step {peers[-1]}", flush=True)
    print(f"{config.model.name}, batch {config.batch_size}, {jax.devices()}; medians:")
    for kind in Milliseconds._fields:
        of_loop = [getattr(one, kind) for one in loops]
        of_peer = [getattr(one, kind) for one in peers]
        ratio = statistics.median(a / b for a, b in zip(of_loop, of_peer, strict=True))
        print(
            f"{kind:>9} ms a step: loop {statistics.median(of_loop):.2f}, bare step "
            f"{statistics.median(of_peer):.2f}, ratio {ratio:.4f}"
        )


def milliseconds_of_loop(config: ConfigDict) -> Milliseconds:
    """Returns the mean time of a step in the loop."""
    times = []

    class Timed(Logger):
        def advance(self, step: int) -> None:
            super().advance(step)
            times.append(Milliseconds.now())

    original, loop.Logger = loop.Logger, Timed
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            train(config, pathlib.Path(folder) / "run")
    finally:
        loop.Logger = original
    return mean_step(times)


def milliseconds_of_step(config: ConfigDict) -> Milliseconds:
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
        times.append(Milliseconds.now())
    return mean_step(times)


if __name__ == "__main__":
    main()
