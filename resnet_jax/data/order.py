"""The order of the examples."""

import functools

import numpy as np
from jaxtyping import Int64

from resnet_jax.data.draws import Stream, check_seed, random_bits
from resnet_jax.errors import InputError


class Order:
    """The examples of every global batch, as a pure function of the seed and the step.

    Each epoch is a permutation of its own. Batches run across its end: when an epoch's last
    examples do not fill a batch, the next epoch's first ones do, so that every epoch shows every
    example exactly once. There is no state to save: the position in the data is the step.
    """

    def __init__(self, examples: int, batch_size: int, seed: int) -> None:
        """Makes an order.

        Args:
          examples: Number of examples of the data set.
          batch_size: Number of examples of a global batch; it may be larger than the data set.
          seed: The run's seed.

        Raises:
          InputError: A number is out of range.
        """
        if examples < 1:
            raise InputError("a data set without examples has no order to train in")
        if batch_size < 1:
            raise InputError(f"a batch has at least 1 example, and {batch_size} were asked for")
        check_seed(seed)
        self._examples = examples
        self._batch_size = batch_size
        self._seed = seed
        # Two, because a batch may run across the end of an epoch.
        self._cached_permutation = functools.lru_cache(maxsize=2)(self._permutation)

    def indices(self, step: int) -> Int64[np.ndarray, "batch"]:
        """Returns the examples of the global batch of a step, counted from 0."""
        first = step * self._batch_size
        stop = first + self._batch_size
        parts = []
        for epoch in range(first // self._examples, (stop - 1) // self._examples + 1):
            start = epoch * self._examples
            parts.append(self._cached_permutation(epoch)[max(first - start, 0) : stop - start])
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> Int64[np.ndarray, "examples"]:
        bits = random_bits(self._seed, Stream.ORDER, epoch, self._examples)
        return np.argsort(bits, kind="stable")
