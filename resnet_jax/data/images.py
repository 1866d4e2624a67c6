"""Sets of images of one size, from which batches are read."""

import io
from typing import Protocol

import numpy as np
from jaxtyping import Int32, Integer, UInt8
from PIL import Image

from resnet_jax.data.source import Example, Source
from resnet_jax.errors import InputError


class ImageSet(Protocol):
    """Labelled images of one size, read by the batch."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes; a label is an index of this."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        ...

    def __len__(self) -> int: ...

    def read(
        self, indices: Integer[np.ndarray, "n"]
    ) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, "n"]]:
        """Returns the images and labels of these examples; there may be none."""
        ...


class MemoryImages:
    """A source's images, decoded once and kept in memory: for data sets that fit into it.

    Images of another size are resized to squares with Pillow's bilinear filter (which averages
    over all the pixels it leaves out); images that are not square do not keep their proportions.

    Attributes:
      class_names: The names of the classes.
      image_shape: Height, width and channels of every image.
    """

    def __init__(self, source: Source, image_size: int) -> None:
        """Decodes all of a source.

        Args:
          source: The images.
          image_size: Their height and width from now on, in pixels.

        Raises:
          InputError: The size is not positive, the source is empty, an image cannot be decoded, or
            some have other channels than the rest.
        """
        if image_size < 1:
            raise InputError(f"an image size is at least 1 pixel, and {image_size} is not")
        if len(source) == 0:
            raise InputError("the data set has no examples")
        channels = _decode(source[0]).shape[2]
        self.class_names = source.class_names
        self.image_shape = (image_size, image_size, channels)
        self._images = np.empty((len(source), *self.image_shape), np.uint8)
        self._labels = np.empty(len(source), np.int32)
        for index in range(len(source)):
            example = source[index]
            image = _decode(example)
            if image.shape[2] != channels:
                raise InputError(
                    f"image {example.key} has {image.shape[2]} channels where the first one of "
                    f"its data set has {channels}; all have to have the same"
                )
            self._images[index] = _resize(image, image_size)
            self._labels[index] = example.label

    def __len__(self) -> int:
        return len(self._labels)

    def read(
        self, indices: Integer[np.ndarray, "n"]
    ) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, "n"]]:
        """Returns copies of the images and labels of these examples."""
        return self._images[indices], self._labels[indices]


def _decode(example: Example) -> UInt8[np.ndarray, "h w c"]:
    """Returns an example's pixels: one channel if it is grey, else red, green and blue."""
    if isinstance(example.image, np.ndarray):
        return example.image
    try:
        with Image.open(io.BytesIO(example.image)) as image:
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except OSError as error:
        raise InputError(f"image {example.key} cannot be decoded: {error}") from error
    return np.atleast_3d(pixels)


def _resize(image: UInt8[np.ndarray, "h w c"], size: int) -> UInt8[np.ndarray, "size size c"]:
    if image.shape[:2] == (size, size):
        return image
    # Channel by channel, because Pillow has no images of any number of channels.
    resized = [
        np.asarray(Image.fromarray(channel).resize((size, size), Image.Resampling.BILINEAR))
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.stack(resized, axis=-1)
