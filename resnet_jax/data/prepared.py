"""Data sets that tensorflow_datasets has prepared, read without TensorFlow."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from etils import epath

from resnet_jax.data.source import Example
from resnet_jax.data.splits import Splits
from resnet_jax.errors import InputError, unknown

if TYPE_CHECKING:  # it takes a second to import
    from tensorflow_datasets.core import DatasetBuilder

_NAMES = ("file_name", "id")
"""Features that name an example, in the data sets that have one."""


class PreparedSplit:
    """The examples of a split, as bytes of image files.

    Attributes:
      class_names: The names of the classes.
    """

    class_names: tuple[str, ...]

    def __init__(self, builder: "DatasetBuilder", split: str) -> None:
        """Opens a split.

        Args:
          builder: The data set, prepared as ArrayRecord.
          split: The name of the split.

        Raises:
          InputError: The data set has no images with one label each, or a file is missing.
        """
        import tensorflow_datasets as tfds

        features = dict(builder.info.features.items())
        self._image, self._label = builder.info.supervised_keys or ("image", "label")
        classes = features.get(self._label)
        if not isinstance(features.get(self._image), tfds.features.Image) or not isinstance(
            classes, tfds.features.ClassLabel
        ):
            raise InputError(f"the examples of {builder.name} are not images with one label each")
        self.class_names = tuple(classes.names)
        self._name = next((name for name in _NAMES if name in features), None)
        self._split = split
        examples = builder.as_data_source(
            split=split, decoders={self._image: tfds.decode.SkipDecoding()}
        )
        self._examples = cast(Sequence[Mapping[str, object]], examples)
        for file in builder.info.splits[split].filepaths:
            if not file.exists():
                raise InputError(f"{builder.name} is not complete: {file} is missing")

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int, /) -> Example:
        position = range(len(self))[index]
        example = self._examples[position]
        name = f"{self._split}:{position}" if self._name is None else example[self._name]
        key = name.decode() if isinstance(name, bytes) else str(name)
        image, label = example[self._image], example[self._label]
        assert isinstance(image, bytes)
        assert isinstance(label, int | np.integer)
        if label < 0:
            raise InputError(f"image {key} has no label; take another split than {self._split}")
        return Example(image, int(label), key)


def prepared_splits(name: str, path: epath.PathLike | None = None) -> Splits:
    """Returns the splits of a data set.

    The data set is found by its files: the code that prepared it need not be there, and the
    newest version of the files is taken unless the name says which.

    Args:
      name: As tensorflow_datasets has it, such as `cifar10` or `name/config:version`.
      path: Where its data sets are; by default its own place.

    Raises:
      InputError: There is no such data set, or it is not prepared as ArrayRecord; the message says
        with which command it will be.
    """
    from tensorflow_datasets.core import (
        DatasetNotFoundError,
        constants,
        file_adapters,
        read_only_builder,
    )

    place = epath.Path(path or constants.get_default_data_dir()).expanduser()
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=os.fspath(place))
    except DatasetNotFoundError:
        raise _not_prepared(name, place) from None
    except ValueError as error:
        raise InputError(
            f"{name!r} is no name of a data set of tfds; write it as 'name' or 'name/config:1.0.0'"
        ) from error
    if file_adapters.FileFormat.ARRAY_RECORD not in builder.info.available_file_formats():
        raise InputError(
            f"{builder.data_dir} is no ArrayRecord, which has its examples at random access; "
            f"`tfds convert_format --dataset_version_dir={builder.data_dir} "
            "--out_file_format=array_record` makes it so"
        )
    return {split: partial(PreparedSplit, builder, split) for split in builder.info.splits}


def _not_prepared(name: str, place: epath.Path) -> InputError:
    import tensorflow_datasets as tfds

    base = name.split("/")[0].split(":")[0]
    infos = [
        info
        for versions in ("*", "*/*")  # without and with a config
        for info in (place / base).glob(f"{versions}/dataset_info.json")
    ]
    if infos:
        folders = sorted(info.parent.relative_to(place) for info in infos)
        names = ", ".join(f"{folder.parent}:{folder.name}" for folder in folders)
        return InputError(f"tfds has not prepared {name} in {place}; what is there is {names}")
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        return unknown("data set of tfds", base, known)
    return InputError(
        f"tfds has not prepared {name} in {place}; "
        f"`tfds build {name} --file_format=array_record --data_dir={place}` does it"
    )
