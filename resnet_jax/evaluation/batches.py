"""Batches of views: those of one shape together, decoded as they are needed."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from resnet_jax.data import Batch, Box, Interpolation, Source, View, decode_crop
from resnet_jax.data.workers import Workers
from resnet_jax.errors import InputError


class Bucket(NamedTuple):
    """Views of one shape, for which one program is compiled.

    Attributes:
      shape: Height and width of the views, in pixels.
      examples: The example of each, ascending.
      views: The view that each is.
    """

    shape: tuple[int, int]
    examples: Int32[np.ndarray, " n"]
    views: list[View]

    def rows(self, pixels: int) -> int:
        """Returns how many views have at most so many pixels; at least one, at most all."""
        height, width = self.shape
        return min(max(1, pixels // (height * width)), len(self.examples))


def buckets(views: Sequence[View], sizes: Int32[np.ndarray, "examples 2"]) -> list[Bucket]:
    """Returns every view of every example, of these heights and widths, in exactly one bucket.

    The largest shapes come first, so that those too large for the memory fail at once.
    """
    members: dict[tuple[int, int], list[tuple[int, View]]] = {}
    for example, (height, width) in enumerate(sizes.tolist()):
        for view in views:
            _, rows, columns = view(height, width)
            members.setdefault((rows, columns), []).append((example, view))
    found = []
    for shape in sorted(members, key=lambda shape: (-shape[0] * shape[1], shape)):
        examples, of_shape = zip(*members[shape], strict=True)
        found.append(Bucket(shape, np.array(examples, np.int32), list(of_shape)))
    return found


class ViewReader:
    """Reads views of consecutive examples of a source; each view is decoded anew.

    Attributes:
      labels: The examples' labels, int32; known once a view of each was read.
      keys: The examples' keys; known at the same time.
    """

    def __init__(self, source: Source, examples: range, *, workers: int | None = None) -> None:
        """Prepares to read these examples, by default in as many threads as there are cores."""
        self.labels: Int32[np.ndarray, " n"] = np.full(len(examples), -1, np.int32)
        self.keys: list[str] = [""] * len(examples)
        self._source = source
        self._examples = examples
        self._workers = Workers(workers)

    def __len__(self) -> int:
        return len(self._examples)

    def buckets(self, views: Sequence[View]) -> list[Bucket]:
        """Returns the views of all the examples, by their shape.

        Raises:
          InputError: An image whose size is needed cannot be decoded; the message names it.
        """
        if all(view.size is not None for view in views):
            return buckets(views, np.ones((len(self), 2), np.int32))
        return buckets(views, self._sizes)

    @functools.cached_property
    def _sizes(self) -> Int32[np.ndarray, "n 2"]:
        sizes = np.empty((len(self), 2), np.int32)

        def measure(row: int) -> None:
            def corner(height: int, width: int) -> Box:
                sizes[row] = height, width
                return Box(0, 0, 1, 1)

            # Decoding refuses images; measured in the same way, they agree.
            pixel = np.empty((1, 1, 3), np.uint8)
            decode_crop(self._source[self._examples[row]], corner, pixel, "bilinear")

        self._workers.each(measure, len(self))
        return sizes

    def batches(
        self, bucket: Bucket, interpolation: Interpolation, *, rows: int, channels: int
    ) -> Iterator[Batch]:
        """Yields the views of a bucket in batches of one size, the last filled up with black.

        They have `image`, uint8 [rows, h, w, channels], and `label`, int32 [rows].

        Raises:
          InputError: An image cannot be decoded, or has colours where one channel is wanted; the
            message names it.
        """

        def read(row: int) -> None:
            number, view = int(bucket.examples[first + row]), bucket.views[first + row]
            example = self._source[self._examples[number]]
            out = pixels[row] if channels == 3 else np.empty((*bucket.shape, 3), np.uint8)
            grey = decode_crop(example, lambda h, w: view(h, w).box, out, interpolation, exact=True)
            if channels == 1:
                if not grey:
                    raise InputError(
                        f"image {example.key} has colours, and the network takes grey images"
                    )
                pixels[row] = out[..., :1]
            labels[row] = self.labels[number] = example.label
            self.keys[number] = example.key

        for first in range(0, len(bucket.examples), rows):
            pixels = np.zeros((rows, *bucket.shape, channels), np.uint8)
            labels = np.zeros(rows, np.int32)
            self._workers.each(read, min(rows, len(bucket.examples) - first))
            yield {"image": pixels, "label": labels}
