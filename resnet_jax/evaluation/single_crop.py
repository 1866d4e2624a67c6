"""Errors of a network over a set of images, each seen once."""

import collections
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from resnet_jax import parallel
from resnet_jax.data import Batch, ImageSet, Statistics, eval_batches, prefetch, preprocess
from resnet_jax.evaluation.network import Variables
from resnet_jax.parallel import AXIS, Replicas


class Errors(NamedTuple):
    """What an evaluation finds.

    Attributes:
      examples: Number of images, each seen once.
      top1_error: Share of them whose label is not the most likely class, in percent.
      top5_error: Share of them whose label is not among the five most likely, in percent.
      loss: Mean cross-entropy, in nats.
    """

    examples: int
    top1_error: float
    top5_error: float
    loss: float


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
        """Prepares the evaluation.

        Args:
          model: The network.
          images: What it is evaluated on.
          statistics: What is subtracted from the images and what they are divided by.
          replicas: The devices.
          batch_size: Images at a time, over all devices; rounded up so that it divides over them.
        """
        self._images = images
        self._replicas = replicas
        self._batch_size = replicas.round_up(batch_size)
        self._sums = replicas.map(_sums_of_batch(model, statistics))

    def __call__(self, variables: Variables) -> Errors:
        """Returns the errors with these variables, which have to be placed on the replicas.

        Raises:
          InputError: An image cannot be read, here or in another process; the message names it.
        """
        failures: list[Exception] = []
        sums, ahead = [], collections.deque()
        with prefetch(map(self._replicas.shard, self._batches(failures))) as sharded:
            for batch in sharded:
                sums.append(self._sums(variables, batch))
                ahead.append(sums[-1])
                if len(ahead) > 2:  # devices that share a host's threads need it to wait for them
                    jax.block_until_ready(ahead.popleft())
        parallel.raise_together(failures[0] if failures else None)
        total = np.sum([np.asarray(s, np.float64) for s in jax.device_get(sums)], axis=0)
        examples, top1, top5, loss = total.tolist()
        return Errors(
            examples=int(examples),
            top1_error=100 * top1 / examples,
            top5_error=100 * top5 / examples,
            loss=loss / examples,
        )

    def _batches(self, failures: list[Exception]) -> Iterator[Batch]:
        """Yields this process's batches; where one cannot be read, it and the rest are black.

        The other processes need as many of this one as it has of its own.
        """
        rows = self._replicas.rows(self._batch_size)
        batches = eval_batches(self._images, batch_size=self._batch_size, rows=rows)
        for _ in range(0, len(self._images), self._batch_size):
            try:
                batch = next(batches)
            except Exception as error:
                failures.append(error)
                if parallel.is_alone():
                    return
                count = rows.stop - rows.start
                batch = {
                    "image": np.zeros((count, *self._images.image_shape), np.uint8),
                    "label": np.zeros(count, np.int32),
                    "mask": np.zeros(count, np.float32),
                }
                batches = itertools.repeat(batch)
            yield batch


def _sums_of_batch(
    model: nn.Module, statistics: Statistics
) -> Callable[[Variables, Mapping[str, Array]], Float[Array, "4"]]:
    def sums(variables: Variables, batch: Mapping[str, Array]) -> Float[Array, "4"]:
        images = preprocess(batch, statistics, padding=0)
        logits = cast(Array, model.apply(variables, images, train=False))
        labels, mask = batch["label"], batch["mask"]
        _, best = lax.top_k(logits, min(5, logits.shape[-1]))
        wrong = best != labels[:, None]
        top1 = jnp.sum(mask * wrong[:, 0].astype(jnp.float32))
        top5 = jnp.sum(mask * wrong.all(axis=-1).astype(jnp.float32))
        loss = jnp.sum(mask * optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        return lax.psum(jnp.stack([jnp.sum(mask), top1, top5, loss]), AXIS)

    return sums
