"""Batches of training and of evaluation: the rows of a process."""

from collections.abc import Iterator

import numpy as np

from resnet_jax.data.augment import Augmentation
from resnet_jax.data.draws import Draws, Order
from resnet_jax.data.images import ImageSet
from resnet_jax.errors import InputError

Batch = dict[str, np.ndarray]
"""Arrays by name; the first axis of each counts the examples."""


def train_batches(
    images: ImageSet,
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    rows: slice,
) -> Iterator[Batch]:
    """Returns the batches of the steps from `start` up to, not including, `stop`.

    A batch depends on the seed and the step alone, so a run that is started again goes on with the
    same batches.

    Args:
      images: The training images.
      augmentation: Draws the random changes of the images.
      batch_size: Number of examples of the global batch.
      seed: The run's seed.
      start: The first step, from 0.
      stop: The step after the last.
      rows: The rows of the global batch that this process takes.

    Returns:
      An iterator over `image`, uint8 [n, h, w, c], `label`, int32 [n], and the arrays of the
      augmentation.

    Raises:
      InputError: There are no images, or the seed or the batch size is out of range. It is raised
        by the call, not by the first batch.
    """
    order = Order(len(images), batch_size, seed)

    def batches() -> Iterator[Batch]:
        for step in range(start, stop):
            draws = Draws(seed, step, batch_size, rows)
            pixels, labels = images.read(order.indices(step)[rows], augmentation.crops(draws))
            yield {"image": pixels, "label": labels, **augmentation(draws)}

    return batches()


def eval_batches(images: ImageSet, *, batch_size: int, rows: slice) -> Iterator[Batch]:
    """Returns every example exactly once, in order, in batches of one size.

    The last global batch is filled up with black images, masked out; every process gets equally
    many batches, of its `rows` of the global batch.

    Returns:
      An iterator over `image`, uint8 [n, h, w, c], `label`, int32 [n], and `mask`, float32 [n],
      which is 1 for an example and 0 for filling.

    Raises:
      InputError: The batch size is not positive. It is raised by the call, not by the first batch.
    """
    if batch_size < 1:
        raise InputError(f"a batch has at least 1 example, and {batch_size} were asked for")

    def batches() -> Iterator[Batch]:
        for first in range(0, len(images), batch_size):
            wanted = np.arange(first, first + batch_size)[rows]
            present = wanted < len(images)
            pixels, labels = images.read(wanted[present])
            missing = len(wanted) - len(labels)
            if missing:
                pixels = np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0)))
                labels = np.pad(labels, (0, missing))
            yield {"image": pixels, "label": labels, "mask": present.astype(np.float32)}

    return batches()
