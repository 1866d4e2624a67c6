"""Data sets that tensorflow_datasets has prepared, read without TensorFlow."""

import itertools
import os
import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from etils import epath

from resnet_jax.data.sources import Example, Once, call
from resnet_jax.data.sources.records import Records, array_records, tfrecords
from resnet_jax.data.sources.splits import Splits
from resnet_jax.errors import InputError, unknown

if TYPE_CHECKING:  # it takes a second to import
    from tensorflow_datasets.core import DatasetBuilder

_NAMES = ("file_name", "id")
"""Features that name an example, in the data sets that have one."""

_FORMATS = ("array_record", "tfrecord")
"""The formats that are read, the preferred one first."""

_NAME = re.compile(r"\w+(/[\w.\-]+)?(:\d+\.\d+\.\d+)?")


class PreparedSplit:
    """The examples of a split, as bytes of image files."""

    def __init__(self, builder: "DatasetBuilder", split: str, once: Once = call) -> None:
        """Opens a split; refused are other examples than images with one label, and damage."""
        import tensorflow_datasets as tfds

        features = builder.info.features
        by_name = dict(features.items())
        self._image, self._label = builder.info.supervised_keys or ("image", "label")
        classes = by_name.get(self._label)
        if not isinstance(by_name.get(self._image), tfds.features.Image) or not isinstance(
            classes, tfds.features.ClassLabel
        ):
            raise InputError(f"the examples of {builder.name} are not images with one label each")
        self.class_names = tuple(classes.names)
        self._name = next((name for name in _NAMES if name in by_name), None)
        self._split = split
        self._records = _open_records(builder, split, once)
        self._parse = partial(
            features.deserialize_example_np, decoders={self._image: tfds.decode.SkipDecoding()}
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> Example:
        position = range(len(self))[index]
        record = self._records[position]
        try:
            example = self._parse(record)
            name = f"{self._split}:{position}" if self._name is None else example[self._name]
            image, label = example[self._image], example[self._label]
        except Exception as error:  # bytes that are something else can raise anything
            raise InputError(
                f"example {self._split}:{position} is not what dataset_info.json says: {error}"
            ) from error
        key = name.decode() if isinstance(name, bytes) else str(name)
        assert isinstance(image, bytes)
        assert isinstance(label, int | np.integer)
        if label < 0:
            raise InputError(f"image {key} has no label; take another split than {self._split}")
        return Example(image, int(label), key)


def prepared_splits(name: str, path: epath.PathLike | None = None, once: Once = call) -> Splits:
    """Returns the splits of a data set.

    The data set is found by its files: the code that prepared it need not be there, and the
    newest version of the files is taken unless the name says which.

    Args:
      name: The data set's name in tensorflow_datasets, such as `cifar10` or `name/config:version`.
      path: tfds' folder of data sets; by default tfds' own.
      once: Indexes the files of TFRecord in one of several processes for all of them.

    Raises:
      InputError: There is no such data set, or it is prepared neither as ArrayRecord nor as
        TFRecord; the message says with which command it will be.
    """
    from tensorflow_datasets.core import DatasetNotFoundError, constants, read_only_builder

    root = epath.Path(path or constants.get_default_data_dir()).expanduser()
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=os.fspath(root))
    except DatasetNotFoundError:
        raise _not_prepared(name, root) from None
    except Exception as error:  # whatever parsers meet in damaged files
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{name!r} is not a name of a data set of tfds; write it as 'name' or "
                "'name/config:1.0.0'"
            ) from error
        reason = str(error).strip().splitlines()[:1]
        raise InputError(
            f"what describes {name} in {root} cannot be read: {''.join(reason)}; copy or prepare "
            "it again"
        ) from error
    if not _formats(builder):
        known = ", ".join(sorted(each.value for each in builder.info.available_file_formats()))
        raise InputError(
            f"{builder.data_dir} is prepared as {known}, and {' and '.join(_FORMATS)} are read; "
            f"`tfds convert_format --dataset_version_dir={builder.data_dir} "
            "--out_file_format=array_record` makes it so"
        )
    return {split: partial(PreparedSplit, builder, split, once) for split in builder.info.splits}


def _formats(builder: "DatasetBuilder") -> list[str]:
    available = {each.value for each in builder.info.available_file_formats()}
    return [each for each in _FORMATS if each in available]


def _open_records(builder: "DatasetBuilder", split: str, once: Once) -> Records:
    """Opens the files of a split in the first format in which they are all there."""
    info = builder.info.splits[split]
    folder = epath.Path(builder.data_dir)
    there = {path.name for path in folder.iterdir()}
    lacking = None
    for format_name in _formats(builder):
        template = info.filename_template.replace(filetype_suffix=format_name)
        files = [folder / path.name for path in template.sharded_filepaths(info.num_shards)]
        lacking = next((file for file in files if file.name not in there), None)
        if lacking is None and files:
            if format_name == "tfrecord":
                return tfrecords(files, info.shard_lengths, split, once)
            return array_records(files, info.shard_lengths)
    raise InputError(f"{builder.name} is not complete: {lacking or f'split {split}'} is missing")


def _not_prepared(name: str, root: epath.Path) -> InputError:
    import tensorflow_datasets as tfds

    base = name.split("/")[0].split(":")[0]
    if (root / base).is_dir():
        infos = itertools.chain.from_iterable(
            (root / base).glob(f"{versions}/dataset_info.json") for versions in ("*", "*/*")
        )
        folders = sorted(info.parent.relative_to(root) for info in infos)
        there = ", ".join(f"{folder.parent}:{folder.name}" for folder in folders)
        there = there or "not finished, and the command that began it goes on"
        return InputError(f"tfds has not prepared {name} in {root}; what is there is {there}")
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        return unknown("data set of tfds", base, known)
    return InputError(
        f"tfds has not prepared {name} in {root}; "
        f"`tfds build {name} --file_format=array_record --data_dir={root}` does it"
    )
