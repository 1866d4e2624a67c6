"""Batches of views: those of one shape together, decoded as they are needed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from resnet_jax.data import Batch, Box, Interpolation, Source, decode_crop
from resnet_jax.data.workers import Workers
from resnet_jax.errors import InputError
from resnet_jax.evaluation.protocol import View


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
    """Returns every view of every example in exactly one bucket.

    The largest shapes come first, so that those too large for the memory fail at once.

    Args:
      views: The views of an image.
      sizes: Height and width of each image; of any value where all views are crops.
    """
    members: dict[tuple[int, int], list[tuple[int, View]]] = {}
    for example, (height, width) in enumerate(sizes.tolist()):
        for view in views:
            _, rows, columns = view(height, width)
            members.setdefault((rows, columns), []).append((example, view))
    return [
        Bucket(
            shape,
            np.array([example for example, _ in members[shape]], np.int32),
            [view for _, view in members[shape]],
        )
        for shape in sorted(members, key=lambda shape: (-shape[0] * shape[1], shape))
    ]


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
        self._sizes: Int32[np.ndarray, "n 2"] | None = None

    def __len__(self) -> int:
        return len(self._examples)

    def buckets(self, views: Sequence[View]) -> list[Bucket]:
        """Returns the views of all the examples, by their shape.

        Raises:
          InputError: An image whose size is needed cannot be decoded; the message names it.
        """
        if all(view.size is not None for view in views):
            return buckets(views, np.ones((len(self), 2), np.int32))
        if self._sizes is None:
            sizes = np.empty((len(self), 2), np.int32)

            def measure(row: int) -> None:
                def corner(height: int, width: int) -> Box:
                    sizes[row] = height, width
                    return Box(0, 0, 1, 1)

                # Decoding turns and refuses images; measured in the same way, they agree.
                pixel = np.empty((1, 1, 3), np.uint8)
                decode_crop(self._source[self._examples[row]], corner, pixel, "bilinear")

            self._workers.each(measure, len(self))
            self._sizes = sizes
        return buckets(views, self._sizes)

    def batches(
        self, bucket: Bucket, interpolation: Interpolation, *, rows: int, channels: int
    ) -> Iterator[Batch]:
        """Yields the views of a bucket in batches of one size, the last filled up with black.

        Yields:
          `image`, uint8 [rows, h, w, channels], and `label`, int32 [rows].

        Raises:
          InputError: An image cannot be decoded, or has colours where one channel is wanted; the
            message names it.
        """
        for first in range(0, len(bucket.examples), rows):
            yield self._batch(bucket, slice(first, first + rows), interpolation, rows, channels)

    def _batch(
        self, bucket: Bucket, part: slice, interpolation: Interpolation, rows: int, channels: int
    ) -> Batch:
        examples, views = bucket.examples[part].tolist(), bucket.views[part]
        pixels = np.zeros((rows, *bucket.shape, channels), np.uint8)
        labels = np.zeros(rows, np.int32)

        def read(row: int) -> None:
            number, view = examples[row], views[row]
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

        self._workers.each(read, len(examples))
        return {"image": pixels, "label": labels}
