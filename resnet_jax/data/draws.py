"""The random numbers of the examples of a batch."""

import dataclasses
import functools
import statistics

import numpy as np
from jaxtyping import Float32, Int32

from resnet_jax.data.random_bits import Stream, random_bits

_LEVELS = 2**16


@dataclasses.dataclass(frozen=True)
class Draws:
    """Random numbers that depend on the seed, the step and an example's row in the global batch.

    They are drawn for the whole global batch, of which a process takes its rows: nothing depends
    on how many processes or threads there are. Each `Stream` has numbers of its own, so that what
    draws from one more leaves the numbers of the others as they were.

    Attributes:
      seed: The run's seed.
      step: The step, from 0.
      batch_size: Number of examples of the global batch.
      rows: The rows of the global batch that are wanted.
    """

    seed: int
    step: int
    batch_size: int
    rows: slice

    def integers(
        self, stream: Stream, bound: int, per_example: int = 1
    ) -> Int32[np.ndarray, "rows per_example"]:
        """Returns whole numbers, equally likely from 0 to `bound - 1`.

        Args:
          stream: What they are for.
          bound: At most 2**31. No number's chance is off by more than 2**-32.
          per_example: How many for each example.
        """
        count = self.batch_size * per_example
        bits = random_bits(self.seed, stream, self.step, count)
        # The upper half of a word, as a fraction of 2**32, times the bound.
        numbers = ((bits >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)
        return numbers.reshape(-1, per_example)[self.rows].astype(np.int32)

    def normals(
        self, stream: Stream, per_example: int = 1
    ) -> Float32[np.ndarray, "rows per_example"]:
        """Returns numbers from a normal distribution with mean 0 and variance 1.

        It is cut into 65,536 equally likely levels, so that a number is the same on every machine;
        the largest is 4.32, and the variance is 2e-5 too small.

        Args:
          stream: What they are for.
          per_example: How many for each example.
        """
        levels = self.integers(stream, _LEVELS, per_example)
        return _normal_quantiles()[levels]


@functools.cache
def _normal_quantiles() -> Float32[np.ndarray, "levels"]:
    """Returns the median of each level, in multiples of 2**-20.

    Mathematical functions differ between machines in their last bits, which this rounds away.
    """
    quantile = statistics.NormalDist().inv_cdf
    upper = [quantile((level + 0.5) / _LEVELS) for level in range(_LEVELS // 2, _LEVELS)]
    rounded = np.rint(np.ldexp(upper, 20))
    return np.ldexp(np.concatenate([-rounded[::-1], rounded]), -20).astype(np.float32)
