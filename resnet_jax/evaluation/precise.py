"""Batch statistics as exact averages over many training images, with the parameters as they are.

During training the running statistics are moving averages, of activations of networks that are not
the final one. He et al. released networks whose statistics were averaged, after training, over a
sufficiently large training batch.

A forward pass in training mode normalises each layer by the statistics of its own group of images,
so that the layers above see what they saw in training. Of each layer the first two moments of a
group are averaged over the groups:

    mean = E[group mean],  var = E[group var + (group mean)^2] - mean^2

which are the mean and (biased) variance of the layer's inputs over all the images: the mean of the
groups' variances alone would leave out the variance of their means.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import cast

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax import lax
from jaxtyping import Array, Float, Float32, Float64, PyTree

from resnet_jax.data import Augmentation, Batch, Draws, ImageSet, Order, Statistics, preprocess
from resnet_jax.errors import InputError
from resnet_jax.evaluation.engine import run_batches
from resnet_jax.evaluation.network import Variables
from resnet_jax.parallel import AXIS, Replicas


def precise_batch_stats(
    model: nn.Module,
    variables: Variables,
    images: ImageSet,
    statistics: Statistics,
    replicas: Replicas,
    *,
    examples: int,
    augmentation: Augmentation | None = None,
    group_size: int = 32,
    seed: int = 0,
) -> tuple[PyTree[Float32[np.ndarray, "..."]], int]:
    """Returns the batch statistics of a network over many training images, and their number.

    The images are the first ones in the order in which a run of this seed sees them, each at most
    once, in whole groups. Groups are the same on any number of devices.

    Args:
      model: A network with batch normalisation.
      variables: Its `params` and `batch_stats`.
      images: Training images.
      statistics: The mean and the deviation that normalise them.
      replicas: The devices.
      examples: How many images at most, rounded down to whole groups.
      augmentation: The augmentation of training; by default none.
      group_size: Images that a layer's inputs are normalised over, as in training; unless the
        network's own `bn_group_size` is a number.
      seed: The run's seed.

    Raises:
      InputError: The network has no batch normalisation, or the images do not make a group.
    """
    if not variables.get("batch_stats") or not hasattr(model, "bn_momentum"):
        raise InputError(
            f"{type(model).__name__} has no batch normalisation, and so no statistics to average"
        )
    own = getattr(model, "bn_group_size", None)
    group_size = own if isinstance(own, int) else group_size
    groups = min(examples, len(images)) // group_size
    if groups < 1:
        raise InputError(
            f"precise statistics need at least a group of {group_size} images, and "
            f"{min(examples, len(images))} are not one; take more"
        )
    augmentation = augmentation or Augmentation()
    moments = replicas.map(_moments(model, statistics, augmentation.padding))
    batches = _batches(images, augmentation, replicas, groups, group_size, seed)
    sums: dict[tuple[str, ...], Float64[np.ndarray, " c"]] = {}
    done = 0
    for found in run_batches(moments, replicas.place(variables), batches, replicas):
        flat = cast(dict[tuple[str, ...], np.ndarray], traverse_util.flatten_dict(found))
        for path, values in flat.items():
            moment = values.astype(np.float64)
            if path[-1] == "var":
                moment = moment + np.square(flat[*path[:-1], "mean"], dtype=np.float64)
            # The last batch may be filled up with groups that are not whole, or not wanted.
            sums[path] = sums.get(path, 0) + moment[: groups - done].sum(axis=0)
        done += replicas.round_up(1)
    means = {path: total / groups for path, total in sums.items()}
    for path in means:
        if path[-1] == "var":
            means[path] = np.maximum(means[path] - np.square(means[*path[:-1], "mean"]), 0)
    averages = {path: mean.astype(np.float32) for path, mean in means.items()}
    return traverse_util.unflatten_dict(averages), groups * group_size


def _batches(
    images: ImageSet,
    augmentation: Augmentation,
    replicas: Replicas,
    groups: int,
    group_size: int,
    seed: int,
) -> Iterator[Batch]:
    """Yields batches of a group for each replica; its draws depend on its number alone."""
    order = Order(len(images), group_size, seed)
    together = replicas.round_up(1)
    mine = replicas.rows(together)

    def read(group: int) -> Batch:
        draws = Draws(seed, group, group_size, slice(0, group_size))
        pixels, _ = images.read(order.indices(group), augmentation.crops(draws))
        return {"image": pixels, **augmentation(draws)}

    for first in range(0, groups, together):
        parts = [read(first + number) for number in range(mine.start, mine.stop)]
        yield {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _moments(
    model: nn.Module, statistics: Statistics, padding: int
) -> Callable[[Variables, Mapping[str, Array]], PyTree[Float[Array, "groups ..."]]]:
    # With a momentum of 0 the running statistics become those of the batch, which is one group.
    model = model.clone(bn_momentum=0.0, bn_group_size=None, bn_axis_name=None)

    def moments(variables: Variables, batch: Mapping[str, Array]) -> PyTree:
        images = preprocess(batch, statistics, padding=padding)
        _, updates = model.apply(
            variables,
            images,
            train=True,
            mutable=["batch_stats", "auxiliary_logits"],
            rngs={"dropout": jax.random.key(0)},  # it comes behind the last normalisation
        )
        return lax.all_gather(updates["batch_stats"], AXIS)

    return moments
