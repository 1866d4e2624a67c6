"""Examples as tensorflow_datasets stores them, and what it has to know of a data set to read it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from etils import epath

from resnet_jax.data.prepare.plan import Plan, Shard
from resnet_jax.data.prepare.progress import Done

if TYPE_CHECKING:  # it takes a second to import
    from tensorflow_datasets.core.features import FeaturesDict

LAST = "features.json"
"""Without this file there is no data set for tensorflow_datasets: it is put in place last."""


def write_info(plan: Plan, done: Mapping[str, Done], folder: epath.PathLike) -> None:
    """Writes `dataset_info.json`, `features.json` and the names of the classes.

    Args:
      plan: What was prepared.
      done: Each file of the plan.
      folder: An empty local folder.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, naming, splits

    features = _features(plan.class_names)
    identity = dataset_info.DatasetIdentity(
        name=plan.name,
        version=tfds.core.Version(plan.version),
        data_dir=str(folder),
        module_name="",
    )
    info = dataset_info.DatasetInfo(
        builder=identity,
        features=features,
        supervised_keys=("image", "label"),
        description="Images with one label each.",
    )
    info.set_file_format(plan.settings.format)
    template = naming.ShardedFileTemplate(
        data_dir=epath.Path(folder),
        dataset_name=plan.name,
        filetype_suffix=plan.settings.format,
    )
    by_split: dict[str, list[Shard]] = {}
    for shard in plan.shards():
        by_split.setdefault(shard.split, []).append(shard)
    info.set_splits(
        splits.SplitDict(
            [
                splits.SplitInfo(
                    name=split,
                    shard_lengths=[done[shard.file].examples for shard in shards],
                    num_bytes=sum(done[shard.file].size for shard in shards),
                    filename_template=template.replace(split=split),
                )
                for split, shards in by_split.items()
            ]
        )
    )
    info.write_to_directory(folder)


def record_maker(class_names: Sequence[str]) -> Callable[[str, bytes, int], bytes]:
    """Returns what makes a record of an example's key, image and label, the same each time."""
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    serializer = ExampleSerializer(_features(class_names).get_serialized_info())

    def make(key: str, image: bytes, label: int) -> bytes:
        name = key.encode(errors="backslashreplace")
        example = {"file_name": name, "image": image, "label": label}
        return serializer.get_tf_example(example).SerializeToString(deterministic=True)

    return make


def _features(class_names: Sequence[str]) -> "FeaturesDict":
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=list(class_names)),
        }
    )
