"""Sets of images of one size, from which batches are read."""

import itertools
from functools import partial
from typing import Protocol

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from resnet_jax.data.bad_records import BadRecords
from resnet_jax.data.crops import Crops, View
from resnet_jax.data.decoding.decode import Interpolation, check_interpolation, decode_crop
from resnet_jax.data.sources import Source
from resnet_jax.data.workers import Workers
from resnet_jax.errors import InputError


class ImageSet(Protocol):
    """Labelled images of one size, read by the batch."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes; a label is an index of this."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image that is read."""
        ...

    def __len__(self) -> int: ...

    def read(
        self, indices: Integer[np.ndarray, "n"], crops: Crops | None = None
    ) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, "n"]]:
        """Returns images and labels of the examples of these indices, of which there may be none.

        `crops` gives the boxes of the images, by row of `indices`; None is the view for evaluation:
        the centre, always the same.
        """
        ...


class DecodedImages:
    """The images of a source, decoded each time they are read: for data sets of any size.

    Every image has red, green and blue, which are the same where it is grey.
    """

    def __init__(
        self,
        source: Source,
        image_size: int,
        *,
        resize: int | None = None,
        interpolation: Interpolation = "bilinear",
        workers: int | None = None,
        bad_records: BadRecords | None = None,
    ) -> None:
        """Prepares to read; no image is decoded yet. The options are those of `load_images`.

        Raises:
          InputError: An option is out of range, or the source is empty.
        """
        check_interpolation(interpolation)
        self._view = View(image_size if resize is None else resize, image_size)
        if len(source) == 0:
            raise InputError("the data set has no examples")
        self.class_names = source.class_names
        self.image_shape = (image_size, image_size, 3)
        self._source = source
        self._interpolation: Interpolation = interpolation
        self._workers = Workers(workers)
        self._bad_records = bad_records

    def __len__(self) -> int:
        return len(self._source)

    def read(
        self, indices: Integer[np.ndarray, "n"], crops: Crops | None = None
    ) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, "n"]]:
        """Decodes images and resamples them to the set's size; without crops, JPEGs in full.

        Raises:
          InputError: An example cannot be read, or too many; the message names the first of them.
        """
        pixels, labels, _ = self.read_grey(indices, crops)
        return pixels, labels

    def read_grey(
        self, indices: Integer[np.ndarray, "n"], crops: Crops | None = None
    ) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, "n"], np.ndarray]:
        """Returns what `read` does and, bool [n], whether each image is grey."""
        pixels = np.empty((len(indices), *self.image_shape), np.uint8)
        labels = np.empty(len(indices), np.int32)
        grey = np.empty(len(indices), np.bool_)

        def fill(row: int) -> None:
            index, bad = int(indices[row]), self._bad_records
            crop = partial(crops, row) if crops else lambda *shape: self._view(*shape).box
            substitutes = () if bad is None else bad.substitutes(index, len(self))
            for candidate in itertools.chain([index], substitutes):
                key = None
                try:
                    example = self._source[candidate]
                    key = example.key
                    grey[row] = decode_crop(
                        example, crop, pixels[row], self._interpolation, exact=not crops
                    )
                    labels[row] = example.label
                    return
                except MemoryError:  # not the example's fault
                    raise
                except Exception as error:  # of any source
                    if bad is None:
                        raise
                    bad.enter(candidate, key, error, examples=len(self))
            raise InputError(
                f"example number {index} cannot be read, and neither can any of those that would "
                "take its place"
            )

        self._workers.each(fill, len(indices))
        return pixels, labels, grey


class MemoryImages:
    """The images of a set in their view for evaluation, in memory: for data sets that fit.

    They have one channel where all of them are grey, else red, green and blue.
    """

    def __init__(self, images: DecodedImages) -> None:
        """Decodes all of a set; the first image that cannot be decoded is an InputError."""
        self.class_names = images.class_names
        pixels, self._labels, grey = images.read_grey(np.arange(len(images)))
        self._images = pixels[..., :1].copy() if grey.all() else pixels
        self.image_shape = (*images.image_shape[:2], self._images.shape[3])

    def __len__(self) -> int:
        return len(self._labels)

    def read(
        self, indices: Integer[np.ndarray, "n"], crops: Crops | None = None
    ) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, "n"]]:
        """Returns copies of images and labels; crops, of what is cropped already, are refused."""
        if crops is not None:
            raise InputError(
                "images are in memory at the size of the network's input, and have no random "
                'crops; set data.in_memory to False, or take the augmentation "pad_crop_flip"'
            )
        return self._images[indices], self._labels[indices]
