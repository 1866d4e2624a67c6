"""Measurements of the parts of a run, one after the other."""

import collections
import dataclasses
import itertools
import math
import os
import platform
import shlex
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import flax
import jax
import numpy as np
from jaxtyping import Array, Float, Int64, PyTree

from resnet_jax import config as configs
from resnet_jax import parallel
from resnet_jax.data import (
    BadRecords,
    DecodedImages,
    Draws,
    Example,
    Order,
    ScaleJitter,
    Source,
    Statistics,
    load_source,
    prefetch,
)
from resnet_jax.data.workers import cores, worker_count
from resnet_jax.errors import InputError
from resnet_jax.files import is_local
from resnet_jax.training.run import Run

_STEPS_AHEAD = 2  # as in training
_MOST_HELD = 256  # examples that are decoded again and again
_ENDLESS = 10**9  # steps


@dataclasses.dataclass(frozen=True)
class Case:
    """Properties of a run that matter for its speed."""

    heading: str  # lines with the network, the data, the devices and the versions of libraries
    examples: int  # for training
    batch_size: int  # images of a step, over all devices
    image_shape: tuple[int, int, int]  # height, width and channels of the network's input
    dtype: str  # of the arithmetic
    in_memory: bool  # whether the images are decoded once, before the first step
    crops: bool  # whether another part of each image is decoded each time
    prepared: bool  # whether the source is a data set of tensorflow_datasets, not a folder
    data_flags: str  # arguments of `prepare` for the source
    shorter_side: int  # pixels of an image's shorter side that its crops make use of
    remote: bool  # whether the source is in an object store
    workers: int  # threads that decode
    prefetch: int  # batches that are made ahead
    shares_cores: bool  # whether the devices are this machine's own cores
    host_memory: int  # bytes


@dataclasses.dataclass(frozen=True)
class Findings:
    """The rate of each part of a run on its own, and of all of them together, in images/s."""

    reading: float  # encoded examples from the source, by as many threads as decode
    encoded_bytes: float  # mean size of an encoded image
    read_seconds: float  # median time from asking for an example to having it
    decoding: Mapping[int, float]  # crops of examples in memory, by the number of threads
    batches: float  # the whole input on the host: reading, decoding and putting together
    transfer: float  # batches from the host to the devices
    sent_bytes: float  # size of an image of a batch, with its random numbers
    step: float  # steps whose batch is on the devices
    compile_seconds: float  # of the step
    step_bytes: int | None  # memory of a device that the step takes, with state and batch
    device_bytes: int | None  # memory of a device
    together: float  # all of it, as in training


def describe(run: Run) -> Case:
    """Returns the properties of a run that matter for its speed."""
    config, data = run.config, run.config.data
    heading = (
        f"{config.model.name} on {len(run.train_images):,} images of "
        f"{configs.data_name(config)}, {data.train_split}\n"
        f"{run.replicas}; {cores()} cores\n"
        f"Python {platform.python_version()}, jax {jax.__version__}, flax {flax.__version__}, "
        f"numpy {np.__version__}"
    )
    tfds = data.source == "tfds"
    flags = {"source": data.source, "path": data.path, "name": data.name if tfds else None}
    match run.augmentation.crop:
        case ScaleJitter(longest=longest):
            shorter_side = longest
        case None:
            shorter_side = data.eval_resize or data.image_size
        case _:
            # Crops of a quarter of the area and more are not enlarged.
            shorter_side = 2 * data.image_size
    return Case(
        heading=heading,
        examples=len(run.train_images),
        batch_size=config.batch_size,
        image_shape=run.train_images.image_shape,
        dtype=config.dtype,
        in_memory=data.in_memory,
        crops=run.augmentation.crop is not None,
        prepared=tfds,
        data_flags=" ".join(f"--{k} {shlex.quote(v)}" for k, v in flags.items() if v),
        shorter_side=shorter_side,
        remote=data.path is not None and not is_local(data.path),
        workers=worker_count(data.workers),
        prefetch=config.prefetch,
        shares_cores=jax.default_backend() == "cpu",
        host_memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def measure(run: Run, *, seconds: float, say: Callable[[str], None]) -> Findings:
    """Measures each part of a run on its own, then all of them together.

    Examples are read anew each time, as in training, as long as the data suffice: read again, they
    would come from the memory of this machine.

    Args:
      run: The run; its training images are read from their source once more, encoded.
      seconds: About how long it takes, without compiling; longer if a step takes seconds.
      say: Called with the name of the part that is measured next.

    Raises:
      InputError: An example cannot be read, or this is one of several processes under `jax.pmap`.
    """
    config, data = run.config, run.config.data
    share = seconds / 5
    rows = run.replicas.rows(config.batch_size)
    if config.parallel == "pmap" and rows != slice(0, config.batch_size):
        # There, a step that was compiled ahead of time wants the rows of all processes.
        raise InputError(
            "in several processes the step is measured as jax.shard_map maps it; add "
            "--config.parallel=shard_map"
        )
    source = load_source(data.source, data.train_split, name=data.name, path=data.path)
    order = Order(len(run.train_images), config.batch_size, config.seed)
    # Each part reads a quarter of its own.
    quarter = max(1, len(run.train_images) // config.batch_size // 4)
    # This process reads and decodes these rows; the others do as much at the same time.
    of_all = config.batch_size / (rows.stop - rows.start)
    workers = worker_count(data.workers)

    say("reading")
    sizes, waits = [], []

    def read(index: int) -> None:
        start = time.perf_counter()
        image = source[index].image
        waits.append(time.perf_counter() - start)
        sizes.append(len(image) if isinstance(image, bytes) else image.nbytes)

    with ThreadPoolExecutor(workers) as pool:
        batches_of_indices = (order.indices(step)[rows].tolist() for step in itertools.count())
        read_batches = (list(pool.map(read, indices)) for indices in batches_of_indices)
        reading = config.batch_size / seconds_each(read_batches, share / 2)

    held = _Held(source, order.indices(quarter)[rows][:_MOST_HELD])
    most = max(workers, cores())
    counts = sorted({workers, most, *(2**n for n in range(most.bit_length()))})
    decoding = {}
    for count in counts:
        say(f"decoding in {count} thread{'s' if count > 1 else ''}")
        images = DecodedImages(
            held,
            data.image_size,
            resize=data.eval_resize,
            interpolation=data.interpolation,
            workers=count,
            bad_records=BadRecords(data.train_split, data.max_bad_share),
        )
        draws = (
            Draws(config.seed, step, len(held), slice(0, len(held))) for step in itertools.count()
        )
        decoded = (images.read(np.arange(len(held)), run.augmentation.crops(d)) for d in draws)
        decoding[count] = of_all * len(held) / seconds_each(decoded, share / len(counts))

    say("batches")
    batches = run.batches(2 * quarter, _ENDLESS)
    batch_rate = config.batch_size / seconds_each(batches, share)
    batch = next(batches)

    say("transfer")
    sent = (jax.block_until_ready(run.replicas.shard(batch)) for _ in itertools.count())
    transfer = config.batch_size / seconds_each(sent, share / 4)

    say("compiling")
    sharded = run.replicas.shard(batch)
    training = _Training(run, sharded)
    say("steps")
    step = config.batch_size / seconds_each(training.losses(itertools.repeat(sharded)), share)

    say("together")
    fresh = map(run.replicas.shard, run.batches(3 * quarter, _ENDLESS))
    with prefetch(fresh, config.prefetch) as ahead:
        together = config.batch_size / seconds_each(training.losses(ahead), share)

    device = jax.local_devices()[0].memory_stats() or {}
    return Findings(
        reading=reading,
        encoded_bytes=statistics.mean(sizes),
        read_seconds=statistics.median(waits),
        decoding=decoding,
        batches=batch_rate,
        transfer=transfer,
        sent_bytes=sum(array.nbytes for array in batch.values()) / len(batch["label"]),
        step=step,
        compile_seconds=training.compile_seconds,
        step_bytes=training.bytes_per_device,
        device_bytes=device.get("bytes_limit"),
        together=together,
    )


def seconds_each(items: Iterator[object], limit: float) -> float:
    """Returns the mean time between two items of an endless iterator, in seconds.

    The mean, because batches that are made ahead come in bursts. The first two items do not count,
    because some work is done once. All processes take equally many: as many as take about `limit`
    seconds, but three to 1,000, or one if that alone takes longer.
    """
    next(items)
    next(items)
    start = time.perf_counter()
    next(items)
    first = time.perf_counter() - start
    wanted = 1 if first > limit else max(3, math.ceil(min(limit / max(first, 1e-9), 1000)))
    count = parallel.once(lambda: wanted)
    start = time.perf_counter() - first  # without the agreement
    for _ in range(count - 1):
        next(items)
    return (time.perf_counter() - start) / count


class _Held(list[Example]):
    """Examples in memory, which takes reading out of decoding; a source."""

    def __init__(self, source: Source, indices: Int64[np.ndarray, "n"]) -> None:
        super().__init__(source[int(index)] for index in indices)
        self.class_names = source.class_names


class _Training:
    """The compiled step and the state that it changes."""

    def __init__(self, run: Run, batch: PyTree[Array]) -> None:
        # The values of the statistics do not matter, and measuring them may take minutes.
        ones = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), run.statistics_template())
        self._state = run.replicas.place(run.init_state())
        step = cast(parallel.MappedFunction, run.train_step(cast(Statistics, ones)))
        start = time.perf_counter()
        self._step = step.compile(self._state, batch)
        self.compile_seconds = time.perf_counter() - start
        memory = self._step.memory_analysis()
        self.bytes_per_device = memory and (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
            + memory.generated_code_size_in_bytes
        )

    def losses(self, batches: Iterable[PyTree[Array]]) -> Iterator[Float[Array, ""]]:
        """Takes a step with each batch and yields its loss, the devices two steps behind."""
        ahead = collections.deque()
        for batch in batches:
            self._state, metrics = self._step(self._state, batch)
            ahead.append(metrics["loss"])
            if len(ahead) > _STEPS_AHEAD:
                yield ahead.popleft().block_until_ready()
