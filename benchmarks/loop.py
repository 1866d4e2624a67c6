"""The cost of the training loop over the bare step: `python benchmarks/loop.py`.

The loop reads, augments and sends its batches, logs, and shows its progress; evaluations,
checkpoints and drawing happen every few thousand steps and are left out. The peer is the same
compiled step on one batch that is on the device already, two steps ahead at most, and nothing else.
In one process they take turns of `log_every` steps, each until the device has done them, so that
the machine is the same for both; printed are the medians over the turns, and the median and the
quartiles of the ratios of neighbours.

On a machine that others use too, trust the processor time: it is summed over all threads, and waits
for nobody.

With `--saves 7` it times instead for how long a save blocks the loop: of the parameters of
ResNet-50 and their momentum, 205 MB, each when the one before is on the disk.
"""

import argparse
import collections
import contextlib
import io
import pathlib
import statistics
import tempfile
import time
from collections.abc import Mapping
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from resnet_jax import create_model
from resnet_jax.checkpoints import Checkpoints
from resnet_jax.config import load_config
from resnet_jax.data import Statistics
from resnet_jax.training import loop, train
from resnet_jax.training.run import Run
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import StepMetrics, TrainStep

SKIPPED = 2  # turns at the start: the first step compiles, the first line of the log does too


class Milliseconds(NamedTuple):
    """A time, by the clock and summed over the threads."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> Self:
        """Reads both clocks."""
        return cls(1e3 * time.perf_counter(), 1e3 * time.process_time())

    def since(self, start: Self, steps: int) -> Self:
        """Returns the mean time of a step."""
        return type(self)(*((now - then) / steps for now, then in zip(self, start, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="digits", help="a file of configs/, without .py")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--saves", type=int, help="time so many saves instead")
    arguments = parser.parse_args()
    if arguments.saves:
        times = time_saves(arguments.saves)
        of_thread = statistics.median(time.processor for time in times)
        print(
            f"a save blocks for {statistics.median(time.wall for time in times):.0f} ms (median of "
            f"{len(times)}: {', '.join(f'{time.wall:.0f}' for time in times)}), {of_thread:.0f} ms "
            "of the thread's processor time"
        )
        return

    config = load_config(f"{arguments.config}.py")
    config.total_steps = (arguments.turns + SKIPPED) * config.log_every
    config.schedule.boundaries = ()
    config.eval_every = config.checkpoint_every = 10 * config.total_steps
    loops, peers = take_turns(config)
    print(f"{config.model.name}, batch {config.batch_size}, {jax.devices()}; {len(peers)} turns")
    for kind in Milliseconds._fields:
        of_loop = [getattr(one, kind) for one in loops]
        of_peer = [getattr(one, kind) for one in peers]
        ratios = [a / b for a, b in zip(of_loop, of_peer, strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        print(
            f"{kind:>9} ms a step: loop {statistics.median(of_loop):.2f}, bare step "
            f"{statistics.median(of_peer):.2f}, ratio {ratio:.4f} (quartiles {low:.3f}, {high:.3f})"
        )


def time_saves(count: int, model: str = "resnet50") -> list[Milliseconds]:
    """Returns for how long each save blocks, by the clock and of the processor time of its thread.

    The first one, which imports what it needs, is left out.
    """
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    network, rng = create_model(model, num_classes=1000), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: network.lazy_init(jax.random.key(0), images, train=False))
    state = {
        name: jax.tree.map(
            lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape, np.float32)), shapes["params"]
        )
        for name in ("variables", "training")
    }
    times = []
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
        for step in range(count + 1):
            wall, processor = time.perf_counter(), time.thread_time()
            checkpoints.save(step, state, {}, metric=None)
            ends = time.perf_counter() - wall, time.thread_time() - processor
            times.append(Milliseconds(*(1e3 * seconds for seconds in ends)))
            checkpoints.wait()
    return times[1:]


def take_turns(config: ConfigDict) -> tuple[list[Milliseconds], list[Milliseconds]]:
    """Returns the times of a step, in the loop and alone, of each turn."""
    loops, peers = [], []

    class TimedRun(Run):
        def train_step(self, statistics: Statistics) -> TrainStep:
            step = super().train_step(statistics)
            state = self.replicas.place(self.init_state())
            batch = self.replicas.shard(next(self.batches(0)))
            length, taken, start = config.log_every, 0, Milliseconds.now()

            def bare(state: TrainState) -> TrainState:
                ahead = collections.deque()
                for _ in range(length):
                    state, metrics = step(state, batch)
                    ahead.append(metrics["loss"])
                    if len(ahead) > 2:
                        ahead.popleft().block_until_ready()
                jax.block_until_ready(state)
                return state

            def timed(
                of_loop: TrainState, its_batch: Mapping[str, jax.Array]
            ) -> tuple[TrainState, StepMetrics]:
                nonlocal state, taken, start
                if taken and taken % length == 0:
                    jax.block_until_ready(of_loop)
                    loops.append(Milliseconds.now().since(start, length))
                    start = Milliseconds.now()
                    state = bare(state)
                    peers.append(Milliseconds.now().since(start, length))
                    start = Milliseconds.now()
                taken += 1
                return step(of_loop, its_batch)

            return timed

    original, loop.Run = loop.Run, TimedRun
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            train(config, pathlib.Path(folder) / "run")
    finally:
        loop.Run = original
    return loops[SKIPPED:], peers[SKIPPED:]


if __name__ == "__main__":
    main()
