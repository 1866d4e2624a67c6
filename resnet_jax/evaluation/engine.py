"""The engine: from views of images to predictions."""

import collections
import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, PyTree
from tqdm import tqdm

from resnet_jax.data import Batch, ImageSet, Statistics, eval_batches, prefetch, preprocess
from resnet_jax.evaluation.batches import Bucket, ViewReader
from resnet_jax.evaluation.metrics import Predictions, concatenate, measure, summarize
from resnet_jax.evaluation.network import Network, Variables
from resnet_jax.evaluation.protocol import Protocol
from resnet_jax.models import BottleneckBlock, ResidualBlock, apply_folded
from resnet_jax.parallel import AXIS, Replicas

Step = Callable[[Variables, PyTree], PyTree]


class Evaluator:
    """Evaluates one network on one set of images; it compiles once for all its calls."""

    def __init__(
        self,
        model: nn.Module,
        images: ImageSet,
        statistics: Statistics,
        replicas: Replicas,
        *,
        batch_size: int,
    ) -> None:
        """Prepares the evaluation on the devices of all processes.

        The batch is of `batch_size` images over all devices, rounded up so that it divides.
        """
        self._images = images
        self._replicas = replicas
        self._batch_size = replicas.round_up(batch_size)
        self._step = replicas.map(_step(model, statistics, Protocol(), summarized=True))

    def __call__(
        self, variables: Variables, after_batch: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """Returns the metrics with these variables, which have to be placed on the replicas.

        Every image counts exactly once; each process reads its rows of each batch. An exception of
        `after_batch`, called after each batch, ends the evaluation.

        Raises:
          InputError: An image cannot be read; the message names it.
        """
        rows = self._replicas.rows(self._batch_size)
        batches = eval_batches(self._images, batch_size=self._batch_size, rows=rows)
        parts = []
        with contextlib.closing(
            run_batches(self._step, variables, batches, self._replicas)
        ) as outputs:
            for output in outputs:
                parts.append(output)
                after_batch()
        return measure(concatenate(parts).select(slice(len(self._images))))


def predict(
    networks: Sequence[Network],
    protocol: Protocol,
    reader: ViewReader,
    replicas: Replicas,
    *,
    batch_size: int,
    quiet: bool = True,
) -> tuple[Predictions, list[int]]:
    """Returns the predictions of a network, or of the mean of the probabilities of several.

    Processes have nothing to do with each other here: each has other images, of other shapes, and
    its own devices. The probabilities of all views of an image are averaged.

    Args:
      networks: The networks, of the same classes; each sees images as they are prepared for it.
      protocol: Which views of an image they see.
      reader: The images of this process.
      replicas: Devices of this process.
      batch_size: Images of the network's size at a time, over these devices; fewer larger views.
      quiet: Draw no bar on the terminal.

    Returns:
      The predictions, and for each network the number of shapes that its views had: as many
      programs were compiled.

    Raises:
      InputError: An image cannot be decoded; the message names it.
    """
    plans = [reader.buckets(protocol.views(network.preparation)) for network in networks]
    shapes = [len(buckets) for buckets in plans]
    views = len(protocol.views(networks[0].preparation))
    # Of one view of each image, in the order of the images, the devices return only what is kept.
    summarized = len(networks) == views == 1 == shapes[0]

    def outputs(network: Network, buckets: Sequence[Bucket]) -> Iterator[tuple[np.ndarray, PyTree]]:
        """Yields the examples and the output of each batch; the last one may be filled up."""
        step = replicas.map(_step(network.model, network.statistics, protocol, summarized))
        variables = replicas.place(network.variables)
        pixels = batch_size * network.preparation.image_size**2 // (1 + protocol.mirrored)
        interpolation = protocol.resampling(network.preparation)
        with tqdm(
            total=sum(len(bucket.examples) for bucket in buckets),
            desc=f"{network.name}, views of {len(buckets)} shapes",
            unit=" views",
            disable=True if quiet else None,  # None: where nobody watches
        ) as bar:
            for bucket in buckets:
                rows = replicas.round_up(bucket.rows(pixels))
                batches = reader.batches(
                    bucket, interpolation, rows=rows, channels=network.channels
                )
                found = run_batches(step, variables, batches, replicas)
                for first, output in zip(range(0, len(bucket.examples), rows), found, strict=True):
                    examples = bucket.examples[first : first + rows]
                    yield examples, output
                    bar.update(len(examples))

    if summarized:
        parts = [part for _, part in outputs(networks[0], plans[0])]
        return concatenate(parts).select(slice(len(reader))), shapes
    scores = np.full((len(reader), networks[0].num_classes), -np.inf, np.float32)
    with np.errstate(invalid="ignore"):  # NaN is refused at the end
        for network, buckets in zip(networks, plans, strict=True):
            for examples, of_views in outputs(network, buckets):
                np.logaddexp.at(scores, examples, of_views[: len(examples)])
    scores -= np.float32(np.log(len(networks) * views))
    return jax.device_get(summarize(jnp.asarray(scores), jnp.asarray(reader.labels))), shapes


def run_batches(
    step: Step, variables: Variables, batches: Iterator[Batch], replicas: Replicas
) -> Generator[PyTree, None, None]:
    """Yields the step's output for each batch, on the host, two batches behind the devices.

    So the devices do not wait for the host; nor are they far ahead of it, because devices that
    share the host's threads need them.
    """
    ahead = collections.deque()
    with prefetch(map(replicas.shard, batches)) as sharded:
        for batch in sharded:
            ahead.append(step(variables, batch))
            if len(ahead) > 2:
                yield jax.device_get(ahead.popleft())
        while ahead:
            yield jax.device_get(ahead.popleft())


def _step(model: nn.Module, statistics: Statistics, protocol: Protocol, summarized: bool) -> Step:
    """Returns the step of one replica, from `image` and `label` to the outputs for all replicas.

    They are `Predictions` if summarized, else log-probabilities, float32 [rows, classes]. A mean
    image is stretched to the size of the images.
    """

    def step(variables: Variables, batch: Mapping[str, Array]) -> PyTree:
        mean, shape = jnp.asarray(statistics.mean), batch["image"].shape[1:]
        if mean.ndim > 1 and mean.shape != shape:
            mean = jax.image.resize(mean, shape, "linear")
        images = preprocess(batch, statistics._replace(mean=mean), padding=0)
        if protocol.mirrored:
            images = jnp.concatenate([images, images[:, :, ::-1]])
        # In a block of another class, normalisations need not follow the convolutions.
        own = getattr(model, "block", None) in (None, ResidualBlock, BottleneckBlock)
        if own and getattr(model, "lowering", "plain") == "fast":
            logits = apply_folded(model, variables, images, method=protocol.method)
        else:
            logits = model.apply(variables, images, train=False, method=protocol.method)
        scores = jax.nn.log_softmax(cast(Array, logits))
        if protocol.mirrored:
            scores = jnp.logaddexp(*jnp.split(scores, 2)) - np.float32(np.log(2))
        output = summarize(scores, batch["label"]) if summarized else scores
        return lax.all_gather(output, AXIS, tiled=True)

    return step
