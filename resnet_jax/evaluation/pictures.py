"""The images that a process evaluates on, as its views want them."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Int32, UInt8

from resnet_jax.data import Batch, Box, Interpolation, Source, decode_crop
from resnet_jax.data.workers import Workers
from resnet_jax.errors import InputError
from resnet_jax.evaluation.plan import Bucket
from resnet_jax.evaluation.views import View


class Pictures:
    """Some consecutive examples of a source, decoded anew for each view.

    Attributes:
      labels: Their labels, int32; known when a view of each was read.
      keys: Their keys; the same.
    """

    def __init__(self, source: Source, examples: range, *, workers: int | None = None) -> None:
        """Prepares to read; no image is decoded yet.

        Args:
          source: The images.
          examples: Which of them.
          workers: Number of threads that decode; by default as many as there are cores.
        """
        self.labels: Int32[np.ndarray, " n"] = np.full(len(examples), -1, np.int32)
        self.keys: list[str] = [""] * len(examples)
        self._source = source
        self._examples = examples
        self._workers = Workers(workers)
        self._sizes: Int32[np.ndarray, "n 2"] | None = None

    def __len__(self) -> int:
        return len(self._examples)

    def sizes(self) -> Int32[np.ndarray, "n 2"]:
        """Returns the height and width of each image.

        Raises:
          InputError: An image cannot be decoded; the message names it.
        """
        if self._sizes is None:
            sizes = np.empty((len(self), 2), np.int32)

            def look(number: int) -> None:
                def corner(height: int, width: int) -> Box:
                    sizes[number] = height, width
                    return Box(0, 0, 1, 1)

                # Whatever turns or refuses an image in decoding does so here, too.
                pixel = np.empty((1, 1, 3), np.uint8)
                decode_crop(self._source[self._examples[number]], corner, pixel, "bilinear")

            self._workers.each(look, len(self))
            self._sizes = sizes
        return self._sizes

    def batches(
        self,
        bucket: Bucket,
        views: Sequence[View],
        interpolation: Interpolation,
        *,
        rows: int,
        channels: int,
    ) -> Iterator[Batch]:
        """Yields the views of a bucket, in batches of one size, the last filled up with black.

        Args:
          bucket: Which views of which examples.
          views: The views.
          interpolation: How images are resampled.
          rows: Views of a batch.
          channels: 3, or 1 for grey images.

        Yields:
          `image`, uint8 [rows, h, w, channels].

        Raises:
          InputError: An image cannot be decoded, or has colours where one channel is wanted; the
            message names it.
        """
        for first in range(0, len(bucket.examples), rows):
            numbers = bucket.examples[first : first + rows]
            wanted = [views[view] for view in bucket.views[first : first + rows]]
            pixels = np.zeros((rows, *bucket.shape, channels), np.uint8)
            read = self._reader(numbers, wanted, interpolation, pixels)
            self._workers.each(read, len(numbers))
            yield {"image": pixels}

    def _reader(
        self,
        numbers: Int32[np.ndarray, " n"],
        views: Sequence[View],
        interpolation: Interpolation,
        pixels: UInt8[np.ndarray, "rows h w c"],
    ) -> Callable[[int], None]:
        def read(row: int) -> None:
            number, view = numbers[row], views[row]
            example = self._source[self._examples[number]]
            colours = np.empty((*pixels.shape[1:3], 3), np.uint8)
            out = pixels[row] if pixels.shape[3] == 3 else colours
            grey = decode_crop(example, lambda h, w: view(h, w).box, out, interpolation, exact=True)
            if out is colours:
                if not grey:
                    raise InputError(
                        f"image {example.key} has colours, and the network takes grey images"
                    )
                pixels[row] = colours[..., :1]
            self.labels[number] = example.label
            self.keys[number] = example.key

        return read
