"""Sets of images by name."""

from collections.abc import Callable, Mapping

from etils import epath

from resnet_jax.data.bad_records import BadRecords
from resnet_jax.data.decoding.decode import Interpolation
from resnet_jax.data.images import DecodedImages, ImageSet, MemoryImages
from resnet_jax.data.sources.digits import digits_splits
from resnet_jax.data.sources.folder import folder_splits
from resnet_jax.data.sources.mnist import mnist_splits
from resnet_jax.data.sources.prepared import prepared_splits
from resnet_jax.data.sources.source import Source
from resnet_jax.data.sources.splits import Splits, select
from resnet_jax.errors import InputError, unknown


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
) -> ImageSet:
    """Returns the images of a split of a data set.

    Args:
      source: "digits", which come with the package; "folder", for `path/<split>/<class>/*`;
        "mnist", for its own four files in `path`; or "tfds", for what tensorflow_datasets has
        prepared.
      split: The split, as `train`, or slices, as `train[:90%]` or `train[45000:]+test`.
      image_size: Height and width of the images, in pixels.
      name: tfds: name of the data set, as `cifar10`, or `name/config:version`.
      path: The folder, or where tfds keeps its data sets; by default its own place.
      in_memory: Decode all images now and keep them, at `image_size`.
      resize: Pixels of the shorter side before the centre is cropped for evaluation; by default
        `image_size`.
      interpolation: How images are resampled, "bilinear" or "bicubic".
      workers: Number of threads that decode; by default as many as there are cores.
      bad_records: What is done about examples that cannot be read; by default they are errors.

    Raises:
      InputError: There is no such source, data set or split, or a number is out of range.
    """
    images = DecodedImages(
        load_source(source, split, name=name, path=path),
        image_size,
        resize=resize,
        interpolation=interpolation,
        workers=workers,
        bad_records=bad_records,
    )
    return MemoryImages(images) if in_memory else images


def load_source(
    source: str, split: str, *, name: str | None = None, path: epath.PathLike | None = None
) -> Source:
    """Returns the examples of a split of a data set, as they are stored.

    Args:
      source: As for `load_images`, and so are the others.
      split: The split, or slices.
      name: tfds: name of the data set.
      path: The folder, or where tfds keeps its data sets.

    Raises:
      InputError: There is no such source, data set or split.
    """
    called = name if name is not None and source == "tfds" else source
    return select(split, load_splits(source, name=name, path=path), of=called)


def load_splits(
    source: str, *, name: str | None = None, path: epath.PathLike | None = None
) -> Splits:
    """Returns the splits of a data set.

    Args:
      source: As for `load_images`, and so are the others.
      name: tfds: name of the data set.
      path: The folder, or where tfds keeps its data sets.

    Raises:
      InputError: There is no such source, or no such data set.
    """
    if source not in _SOURCES:
        raise unknown("data source", source, _SOURCES)
    return _SOURCES[source](name, path)


def _digits(name: str | None, path: epath.PathLike | None) -> Splits:
    return digits_splits()


def _folder(name: str | None, path: epath.PathLike | None) -> Splits:
    if path is None:
        raise InputError("data.path is not set; it is the folder with the images")
    return folder_splits(path)


def _mnist(name: str | None, path: epath.PathLike | None) -> Splits:
    if path is None:
        raise InputError("data.path is not set; it is the folder with the files of MNIST")
    return mnist_splits(path)


def _tfds(name: str | None, path: epath.PathLike | None) -> Splits:
    if name is None:
        raise InputError("data.name is not set; it is the data set of tfds, such as cifar10")
    return prepared_splits(name, path)


_SOURCES: Mapping[str, Callable[[str | None, epath.PathLike | None], Splits]] = {
    "digits": _digits,
    "folder": _folder,
    "mnist": _mnist,
    "tfds": _tfds,
}
