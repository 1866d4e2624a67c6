"""Random bits as a pure function of a run's seed, what they are for, and when.

numpy promises that the bits of a bit generator stay what they are from version to version, and
does not promise it of the distributions (`Generator.permutation`, `Generator.random`); so runs are
built on the bits alone.
"""

import enum

import numpy as np
from jaxtyping import UInt64

from resnet_jax.errors import InputError


class Stream(enum.IntEnum):
    """What random bits are for; each has bits of its own.

    The numbers are part of what a seed means: new ones are added, none is changed.
    """

    ORDER = 0
    CROP = 1
    FLIP = 2
    BOX = 3
    COLOR = 4
    SUBSTITUTE = 5


def check_seed(seed: int) -> None:
    """Raises InputError unless the seed is a whole number of 64 bits."""
    if not 0 <= seed < 2**64:
        raise InputError(f"a seed is a whole number from 0 to 2**64 - 1, and {seed} is not")


def random_bits(seed: int, stream: Stream, index: int, count: int) -> UInt64[np.ndarray, "count"]:
    """Returns random words of 64 bits, from the counter-based generator Philox-4x64.

    Args:
      seed: The run's seed, from 0 to 2**64 - 1.
      stream: What the bits are for.
      index: The step or epoch; the words of two indices never overlap.
      count: How many words; fewer are the beginning of more.
    """
    key = np.array([seed, stream], dtype=np.uint64)
    # Generating counts up from the first word of the counter; the last one is ours.
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)
