"""The order of examples and random numbers, as pure functions of a run's seed and the step.

numpy promises that the bits of a bit generator stay the same from version to version, and does not
promise it of the distributions (`Generator.permutation`, `Generator.random`); so runs are built on
the bits alone.
"""

import dataclasses
import enum
import functools
import statistics
import threading
from concurrent.futures import Future

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt64

from resnet_jax.errors import InputError

_LEVELS = 2**16


class Stream(enum.IntEnum):
    """Purposes of random bits; each has bits of its own.

    The numbers are part of what a seed means: new ones are added, none is changed.
    """

    ORDER = 0
    CROP = 1
    FLIP = 2
    BOX = 3
    COLOR = 4
    SUBSTITUTE = 5


def random_bits(seed: int, stream: Stream, index: int, count: int) -> UInt64[np.ndarray, "count"]:
    """Returns random words of 64 bits, from the counter-based generator Philox-4x64.

    Args:
      seed: The run's seed, from 0 to 2**64 - 1.
      stream: The purpose of the bits.
      index: The step or epoch; the words of two indices never overlap.
      count: How many words; fewer are the beginning of more.
    """
    key = np.array([seed, stream], dtype=np.uint64)
    # Generating counts up from the first word of the counter; the last one is ours.
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)


class Order:
    """The examples of every global batch, as a pure function of the seed and the step.

    Each epoch is a permutation of its own. Batches run across its end: when an epoch's last
    examples do not fill a batch, the next epoch's first ones do, so that every epoch shows every
    example exactly once. There is no state to save: the position in the data is the step.

    From the middle of an epoch the next one's permutation is computed in the background, as one of
    14 million examples takes seconds. At most two are kept. Several threads may ask.
    """

    def __init__(self, examples: int, batch_size: int, seed: int) -> None:
        """Makes an order of so many examples; a batch may be larger than the data set.

        Raises:
          InputError: A number is out of range.
        """
        if examples < 1:
            raise InputError("a data set without examples has no order to train in")
        if batch_size < 1:
            raise InputError(f"a batch has at least 1 example, and {batch_size} were asked for")
        if not 0 <= seed < 2**64:
            raise InputError(f"a seed is a whole number from 0 to 2**64 - 1, and {seed} is not")
        self._examples = examples
        self._batch_size = batch_size
        self._seed = seed
        # Two, because a batch may run across the end of an epoch.
        self._begun = functools.lru_cache(maxsize=2)(self._begin)
        self._lock = threading.Lock()

    def indices(self, step: int) -> Int64[np.ndarray, "batch"]:
        """Returns the examples of the global batch of a step, counted from 0."""
        first = step * self._batch_size
        stop = first + self._batch_size
        last = (stop - 1) // self._examples
        parts = []
        for epoch in range(first // self._examples, last + 1):
            start = epoch * self._examples
            permutation = self._permutation(epoch).result()
            parts.append(permutation[max(first - start, 0) : stop - start])
        if stop % self._examples > self._examples // 2:
            self._permutation(last + 1)
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> Future[Int64[np.ndarray, "examples"]]:
        with self._lock:  # or two threads would begin the same one
            return self._begun(epoch)

    def _begin(self, epoch: int) -> Future[Int64[np.ndarray, "examples"]]:
        future = Future()

        def compute() -> None:
            try:
                bits = random_bits(self._seed, Stream.ORDER, epoch, self._examples)
                future.set_result(np.argsort(bits, kind="stable"))
            except BaseException as error:
                future.set_exception(error)

        # The end of the program waits for the threads of an executor, not for this one.
        threading.Thread(target=compute, name=f"epoch {epoch}", daemon=True).start()
        return future


@dataclasses.dataclass(frozen=True)
class Draws:
    """Random numbers that depend on the seed, the step and an example's row in the global batch.

    They are drawn for the whole global batch, of which a process takes its rows: nothing depends
    on how many processes or threads there are. Each `Stream` has numbers of its own, so that a new
    one leaves the numbers of the others as they were.

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
        """Returns whole numbers for each example, equally likely from 0 to `bound - 1`.

        `bound` is at most 2**31. No number's chance is off by more than 2**-32.
        """
        count = self.batch_size * per_example
        bits = random_bits(self.seed, stream, self.step, count)
        # The upper half of a word, as a fraction of 2**32, times the bound.
        numbers = ((bits >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)
        return numbers.reshape(-1, per_example)[self.rows].astype(np.int32)

    def normals(
        self, stream: Stream, per_example: int = 1
    ) -> Float32[np.ndarray, "rows per_example"]:
        """Returns numbers for each example from a normal distribution with mean 0 and variance 1.

        It is cut into 65,536 equally likely levels, so that a number is the same on every machine;
        the largest is 4.32, and the variance is 2e-5 too small.
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
