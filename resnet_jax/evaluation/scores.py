"""Class probabilities of images, from all the views of a protocol."""

import collections
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Float32, Int32
from tqdm import tqdm

from resnet_jax.data import Batch, Statistics, prefetch, preprocess
from resnet_jax.evaluation.network import Network, Variables
from resnet_jax.evaluation.pictures import Pictures
from resnet_jax.evaluation.plan import Bucket, plan
from resnet_jax.evaluation.protocol import Shown
from resnet_jax.parallel import AXIS, Replicas


class Scores(NamedTuple):
    """What a network says of images.

    Attributes:
      log_probabilities: Of each class, the logarithm of the mean over the views, in nats.
      shapes: How many shapes the views had; as many programs were compiled.
    """

    log_probabilities: Float32[np.ndarray, "n classes"]
    shapes: int


def score(
    network: Network,
    shown: Shown,
    pictures: Pictures,
    replicas: Replicas,
    *,
    batch_size: int,
    quiet: bool = True,
) -> Scores:
    """Returns what a network says of images.

    The forward passes have nothing in common with those of other processes, which may see images of
    other shapes: each process does its share alone, on its own replicas.

    Args:
      network: The network.
      shown: How the images are shown to it.
      pictures: The images.
      replicas: Devices of this process.
      batch_size: Images of the size of the network's at a time, over these devices; views that are
        larger, or mirrored too, are as many fewer as their pixels are more.
      quiet: Draw no bar on the terminal.

    Raises:
      InputError: An image cannot be decoded.
    """
    views, copies = shown.views, 1 + shown.mirrored
    all_alike = all(view.shape is not None for view in views)
    sizes = np.zeros((len(pictures), 2), np.int32) if all_alike else pictures.sizes()
    buckets = plan(views, sizes)
    pixels = batch_size * network.preparation.image_size**2
    step = replicas.map(
        _log_probabilities(_apply(network.model, shown), network.statistics, shown.mirrored)
    )
    variables = replicas.place(network.variables)
    total = np.full((len(pictures), network.num_classes), -np.inf, np.float32)
    bar = tqdm(
        total=len(pictures) * len(views),
        desc=f"{network.name}, views of {len(buckets)} shapes",
        unit=" views",
        disable=True if quiet else None,  # None: where nobody watches
    )
    with bar, np.errstate(invalid="ignore"):  # what is no number is refused at the end
        for bucket in buckets:
            rows = replicas.round_up(bucket.rows(pixels, copies))
            batches = pictures.batches(
                bucket, views, shown.interpolation, rows=rows, channels=network.channels
            )
            found = _run(step, variables, batches, replicas)
            for examples, log_probabilities in zip(_parts(bucket, rows), found, strict=True):
                for example, of_view in zip(examples, log_probabilities, strict=False):
                    total[example] = np.logaddexp(total[example], of_view)
                bar.update(len(examples))
    return Scores(total - np.float32(np.log(len(views))), len(buckets))


def _parts(bucket: Bucket, rows: int) -> Iterator[Int32[np.ndarray, " rows"]]:
    for first in range(0, len(bucket.examples), rows):
        yield bucket.examples[first : first + rows]


def _run(
    step: Callable[[Variables, Mapping[str, Array]], Array],
    variables: Variables,
    batches: Iterator[Batch],
    replicas: Replicas,
) -> Iterator[Float32[np.ndarray, "rows classes"]]:
    """Yields what the step says of each batch, one batch behind what the devices work on."""
    ahead = collections.deque()
    with prefetch(map(replicas.shard, batches)) as sharded:
        for batch in sharded:
            ahead.append(step(variables, batch))
            if len(ahead) > 1:
                yield jax.device_get(ahead.popleft())
        while ahead:
            yield jax.device_get(ahead.popleft())


def _apply(model: nn.Module, shown: Shown) -> Callable[..., object]:
    if shown.fully_convolutional:
        return functools.partial(model.apply, method="fully_convolutional")
    return model.apply


def _log_probabilities(
    apply: Callable[..., object], statistics: Statistics, mirrored: bool
) -> Callable[[Variables, Mapping[str, Array]], Float[Array, "rows classes"]]:
    def log_probabilities(
        variables: Variables, batch: Mapping[str, Array]
    ) -> Float[Array, "rows classes"]:
        images = preprocess(batch, _stretched(statistics, batch["image"].shape[1:]), padding=0)
        if mirrored:
            images = jnp.concatenate([images, images[:, :, ::-1]])
        logits = cast(Array, apply(variables, images, train=False))
        found = jax.nn.log_softmax(logits)
        if mirrored:
            found = jnp.logaddexp(*jnp.split(found, 2)) - np.float32(np.log(2))
        # The replicas of this process alone: of the others nothing is known here.
        return lax.all_gather(found, AXIS, tiled=True)

    return log_probabilities


def _stretched(statistics: Statistics, shape: tuple[int, ...]) -> Statistics:
    """Returns the statistics with a mean image of this shape, where they have one."""
    mean = jnp.asarray(statistics.mean)
    if mean.ndim == 1 or mean.shape == shape:
        return statistics
    return statistics._replace(mean=jax.image.resize(mean, shape, "linear"))
