"""Measures the parts of a run, one after the other."""

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import jax
import numpy as np
from jaxtyping import Array, Float, Int64, PyTree

from resnet_jax.data import Batch, Draws, Example, Order, Source, Statistics, prefetch
from resnet_jax.data.workers import cores
from resnet_jax.doctor.findings import Findings, Reading, Step
from resnet_jax.doctor.subject import Subject
from resnet_jax.doctor.timing import pace, seconds_of
from resnet_jax.errors import InputError

_STEPS_AHEAD = 2  # as in training
_HELD = 256  # examples that are decoded again and again
_FOR_EVER = 10**9  # steps


def examine(
    subject: Subject, *, seconds: float, say: Callable[[str], None] = lambda line: None
) -> Findings:
    """Measures each part of a run on its own, then all of them together.

    What is read from the source is new each time, as in training, as long as the data suffice: read
    again, it would come from the memory of this machine.

    Args:
      subject: What is measured.
      seconds: About how long it takes, without what is compiled; longer if a step takes seconds.
      say: Told what is being measured.

    Raises:
      InputError: An example cannot be read, or this is one of several processes under `jax.pmap`.
    """
    run, config = subject.run, subject.run.config
    share = seconds / 5
    rows = run.replicas.rows(config.batch_size)
    if config.parallel == "pmap" and rows != slice(0, config.batch_size):
        # There, a step that was compiled ahead of time wants the rows of all processes.
        raise InputError(
            "in several processes the step is measured as jax.shard_map maps it; add "
            "--config.parallel=shard_map"
        )
    order = Order(len(run.train_images), config.batch_size, config.seed)
    # Each part reads a quarter of its own.
    quarter = max(1, len(run.train_images) // config.batch_size // 4)
    # What is measured here falls to this process; the others do as much at the same time.
    of_all = config.batch_size / (rows.stop - rows.start)

    say("reading")
    indices = (order.indices(step)[rows] for step in itertools.count())
    reading = _reading(subject.source, indices, subject.workers, share / 2)

    held = _Held(subject.source, order.indices(quarter)[rows][:_HELD])
    counts = _thread_counts(subject.workers)
    decoding = {}
    for count in counts:
        say(f"decoding in {count} thread{'s' if count > 1 else ''}")
        decoding[count] = of_all * _decoding(subject, held, count, share / len(counts))

    say("batches")
    batches = run.batches(2 * quarter, _FOR_EVER)
    seconds_of_batch = pace(batches, share)
    batch = next(batches)

    say("transfer")
    seconds_of_transfer = seconds_of(
        lambda: jax.block_until_ready(run.replicas.shard(batch)), share / 4
    )

    say("compiling")
    sharded = run.replicas.shard(batch)
    training = _Training(subject, sharded)
    say("steps")
    seconds_of_step = pace(training.losses(itertools.repeat(sharded)), share)

    say("together")
    fresh = map(run.replicas.shard, run.batches(3 * quarter, _FOR_EVER))
    with prefetch(fresh, config.prefetch) as ahead:
        seconds_together = pace(training.losses(ahead), share)

    return Findings(
        reading=dataclasses.replace(reading, images_per_second=of_all * reading.images_per_second),
        decoding=decoding,
        batches=config.batch_size / seconds_of_batch,
        transfer=config.batch_size / seconds_of_transfer,
        bytes_per_image=_bytes(batch) / len(batch["label"]),
        step=Step(
            images_per_second=config.batch_size / seconds_of_step,
            compile_seconds=training.compile_seconds,
            bytes_per_device=training.bytes_per_device,
            bytes_of_device=_device_memory(),
        ),
        together=config.batch_size / seconds_together,
    )


class _Held:
    """Examples in memory, which takes reading out of decoding; a source."""

    def __init__(self, source: Source, indices: Int64[np.ndarray, "n"]) -> None:
        self.class_names = source.class_names
        self._examples = [source[int(index)] for index in indices]

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int, /) -> Example:
        return self._examples[index]


class _Training:
    """The step, compiled, and a state that it goes on with."""

    def __init__(self, subject: Subject, batch: PyTree[Array]) -> None:
        run = subject.run
        # What is subtracted does not matter, and measuring it may take minutes.
        ones = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), run.statistics_template())
        self._state = run.replicas.place(run.init_state())
        step = cast(jax.stages.Wrapped, run.train_step(cast(Statistics, ones)))
        start = time.perf_counter()
        self._step = step.lower(self._state, batch).compile()
        self.compile_seconds = time.perf_counter() - start
        self.bytes_per_device = _memory_of(self._step)

    def losses(self, batches: Iterable[PyTree[Array]]) -> Iterator[Float[Array, ""]]:
        """Takes a step with each batch and yields its loss, the devices two steps behind."""
        ahead = collections.deque()
        for batch in batches:
            self._state, metrics = self._step(self._state, batch)
            ahead.append(metrics["loss"])
            if len(ahead) > _STEPS_AHEAD:
                yield ahead.popleft().block_until_ready()


def _reading(
    source: Source, indices: Iterator[Int64[np.ndarray, "n"]], threads: int, limit: float
) -> Reading:
    sizes, waits = [], []

    def read(index: int) -> None:
        start = time.perf_counter()
        image = source[index].image
        waits.append(time.perf_counter() - start)
        sizes.append(len(image) if isinstance(image, bytes) else image.nbytes)

    with ThreadPoolExecutor(threads) as pool:
        per_batch = seconds_of(lambda: list(pool.map(read, next(indices).tolist())), limit)
    return Reading(
        images_per_second=len(next(indices)) / per_batch,
        bytes_per_image=float(np.mean(sizes)),
        seconds=float(np.median(waits)),
    )


def _decoding(subject: Subject, held: Source, threads: int, limit: float) -> float:
    """Returns images/s."""
    run = subject.run
    images = subject.decoder(held, threads)
    steps = itertools.count()

    def decode() -> None:
        draws = Draws(run.config.seed, next(steps), len(held), slice(0, len(held)))
        images.read(np.arange(len(held)), run.augmentation.crops(draws))

    return len(held) / seconds_of(decode, limit)


def _thread_counts(workers: int) -> list[int]:
    """Returns 1, 2, 4, ... and how many are configured, and how many there could be."""
    most = max(workers, cores())
    return sorted({workers, most, *(2**n for n in range(most.bit_length()))})


def _bytes(batch: Batch) -> int:
    return sum(array.nbytes for array in batch.values())


def _memory_of(step: jax.stages.Compiled) -> int | None:
    found = step.memory_analysis()
    if found is None:
        return None
    return (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
        + found.generated_code_size_in_bytes
    )


def _device_memory() -> int | None:
    stats = jax.local_devices()[0].memory_stats()
    return None if stats is None else stats.get("bytes_limit")
