"""Sets of images by name."""

from collections.abc import Callable, Mapping

from resnet_jax.data.digits import Digits
from resnet_jax.data.images import ImageSet, MemoryImages
from resnet_jax.data.source import Source
from resnet_jax.errors import unknown

_SOURCES: Mapping[str, Callable[[str], Source]] = {"digits": Digits}


def load_images(source: str, split: str, image_size: int) -> ImageSet:
    """Returns the images of a split of a data set.

    Args:
      source: "digits".
      split: A split that the source has: "train" or "test".
      image_size: Height and width of the images, in pixels.

    Raises:
      InputError: There is no such source, it has no such split, or the size is not positive.
    """
    if source not in _SOURCES:
        raise unknown("data source", source, _SOURCES)
    return MemoryImages(_SOURCES[source](split), image_size)
