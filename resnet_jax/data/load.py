"""Data sets by name.

A new source is a class in `sources/` and a line in `_SOURCES`.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from etils import epath

from resnet_jax.data.bad_records import BadRecords
from resnet_jax.data.decoding.decode import Interpolation
from resnet_jax.data.images import DecodedImages, ImageSet, MemoryImages
from resnet_jax.data.sources import Once, Source, call
from resnet_jax.data.sources.digits import digits_splits, mnist_splits
from resnet_jax.data.sources.folder import folder_splits
from resnet_jax.data.sources.prepared import prepared_splits
from resnet_jax.data.sources.splits import Splits, select
from resnet_jax.errors import InputError, unknown

_T = TypeVar("_T")

_SOURCES: Mapping[str, Callable[[str | None, epath.PathLike | None, Once], Splits]] = {
    "digits": lambda name, path, once: digits_splits(),
    "folder": lambda name, path, once: folder_splits(
        _given(path, "data.path", "the folder with the images"), once
    ),
    "mnist": lambda name, path, once: mnist_splits(
        _given(path, "data.path", "the folder with the files of MNIST")
    ),
    "tfds": lambda name, path, once: prepared_splits(
        _given(name, "data.name", "the data set of tfds, such as cifar10"), path, once
    ),
}


def load_images(
    source: str,
    split: str,
    image_size: int,
    *,
    name: str | None = None,
    path: epath.PathLike | None = None,
    in_memory: bool = True,
    resize: int | None = None,
    interpolation: Interpolation = "bilinear",
    workers: int | None = None,
    bad_records: BadRecords | None = None,
    once: Once = call,
) -> ImageSet:
    """Returns the images of a split of a data set.

    Args:
      source: "digits", of the package; "folder", `path/<split>/<class>/*`; "mnist", its own four
        files in `path`; or "tfds", for what tensorflow_datasets has prepared.
      split: The split, as `train`, or slices, as `train[:90%]` or `train[45000:]+test`.
      image_size: Height and width of the images, in pixels.
      name: tfds: name of the data set, as `cifar10`, or `name/config:version`.
      path: The folder, or tfds' folder of data sets; by default tfds' own.
      in_memory: Decode all images now and keep them, at `image_size`.
      resize: Pixels of the shorter side before the centre is cropped for evaluation; by default
        `image_size`.
      interpolation: How images are resampled, "bilinear" or "bicubic".
      workers: Number of threads that decode; by default as many as there are cores.
      bad_records: Replaces examples that cannot be read; by default they are errors.
      once: Lists the data in one of several processes for all of them, such as `parallel.once`.

    Raises:
      InputError: There is no such source, data set or split, or a number is out of range.
    """
    images = DecodedImages(
        load_source(source, split, name=name, path=path, once=once),
        image_size,
        resize=resize,
        interpolation=interpolation,
        workers=workers,
        bad_records=bad_records,
    )
    return MemoryImages(images) if in_memory else images


def load_source(
    source: str,
    split: str,
    *,
    name: str | None = None,
    path: epath.PathLike | None = None,
    once: Once = call,
) -> Source:
    """Returns the examples of a split of a data set, as stored; see `load_images`."""
    of = name if name is not None and source == "tfds" else source
    return select(split, load_splits(source, name=name, path=path, once=once), of=of)


def load_splits(
    source: str,
    *,
    name: str | None = None,
    path: epath.PathLike | None = None,
    once: Once = call,
) -> Splits:
    """Returns the splits of a data set; see `load_images`."""
    if source not in _SOURCES:
        raise unknown("data source", source, _SOURCES)
    return _SOURCES[source](name, path, once)


def _given(value: _T | None, key: str, meaning: str) -> _T:
    if value is None:
        raise InputError(f"{key} is not set; it is {meaning}")
    return value
