"""Sources: labelled images by index, one file for each kind of data set."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from jaxtyping import UInt8

T = TypeVar("T")


class Once(Protocol):
    """Calls a function in one of several processes, for all of them."""

    def __call__(self, make: Callable[[], T], /) -> T:
        """Returns its value, which is of JSON's types, on each of them."""
        ...


def call(make: Callable[[], T], /) -> T:
    """Returns a function's value: `Once` for a single process."""
    return make()


class Example(NamedTuple):
    """One labelled image, encoded or as pixels.

    Attributes:
      image: The pixels, or the bytes of an image file.
      label: Index of the class in the source's `class_names`.
      key: The example's name in its source, for messages and listings.
    """

    image: UInt8[np.ndarray, "h w c"] | bytes
    label: int
    key: str


class Source(Protocol):
    """Labelled images by index. A source knows nothing of order, batches or augmentation.

    Several threads may ask it for examples at the same time.
    """

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes; a label is an index of this."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...
