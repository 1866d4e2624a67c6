"""The files beside the shards: a description for tensorflow_datasets, and a manifest.

`features.json` is written last; without it tensorflow_datasets finds no data set.
"""

import dataclasses
import json
import tempfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypedDict

from etils import epath
from tqdm import tqdm

from resnet_jax.data.prepare.plan import FORMAT, Plan
from resnet_jax.data.sources.prepared import UNFINISHED, prepared_splits
from resnet_jax.errors import InputError
from resnet_jax.files import Fingerprint, fingerprint, write_atomically

if TYPE_CHECKING:  # it takes a second to import
    from tensorflow_datasets.core.features import FeaturesDict

LAST = "features.json"

_MANIFEST = "manifest.json"
_MANIFEST_FORMAT = 1
_THREADS = 8


class _Manifest(TypedDict):
    format: int
    plan: Mapping[str, object]
    examples: Mapping[str, int]
    files: Mapping[str, Fingerprint]


def verify(out: epath.PathLike, name: str, version: str = "1.0.0") -> Mapping[str, int]:
    """Reads every file of a data set that `prepare` wrote, and compares it with what was written.

    Args:
      out: Where data sets of tensorflow_datasets are.
      name: The data set.
      version: Its version.

    Returns:
      Number of examples of each split.

    Raises:
      InputError: It is missing or not finished, or a file differs; the message names it.
    """
    folder = epath.Path(out).expanduser() / name / version
    if not (folder / LAST).exists():
        if (folder / UNFINISHED).exists():
            raise InputError(f"{folder} is not finished; the command that began it goes on")
        raise InputError(f"there is no prepared data set {folder}")
    manifest = read_manifest(folder)
    files = manifest["files"]
    for file, found in _fingerprints(folder, files).items():
        if found != files[file]:
            raise InputError(
                f"{folder / file} is not what was written; delete the folder and prepare it again"
            )
    splits = prepared_splits(f"{name}:{version}", out)
    if {split: len(opened()) for split, opened in splits.items()} != manifest["examples"]:
        raise InputError(f"{folder} has another number of examples than was written")
    return manifest["examples"]


def examples_in(folder: epath.Path) -> Mapping[str, int]:
    """Returns the number of examples of each split of a finished data set."""
    return read_manifest(folder)["examples"]


def read_manifest(folder: epath.Path) -> _Manifest:
    """Returns the manifest of a finished data set.

    Raises:
      InputError: Something else than `prepare` wrote the data set, or another version of it.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        if manifest["format"] == _MANIFEST_FORMAT:
            return manifest
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} has no {_MANIFEST} that can be read, so that there is nothing to compare it "
            "with"
        ) from error
    raise InputError(f"another version of resnet_jax prepared {folder}")


def finish(folder: epath.Path, plan: Plan, shards: Mapping[str, int], others: list[str]) -> None:
    """Makes a data set of files that are in place.

    Args:
      folder: Where they are.
      plan: The plan by which they were written.
      shards: Number of examples of each shard, by the name of its file.
      others: Names of other files that belong to the data set.
    """
    files = _fingerprints(folder, [*shards, *others])
    with tempfile.TemporaryDirectory() as scratch:
        described = epath.Path(scratch)
        _describe(plan, shards, {name: files[name]["bytes"] for name in shards}, described)
        # The one that makes it a data set comes last.
        names = sorted((path.name for path in described.iterdir()), key=lambda n: (n == LAST, n))
        manifest: _Manifest = {
            "format": _MANIFEST_FORMAT,
            "plan": dataclasses.asdict(plan),
            "examples": {
                split: sum(shards[shard.file] for shard in plan.shards() if shard.split == split)
                for split in plan.counts
            },
            "files": {**files, **_fingerprints(described, names)},
        }
        write_atomically(folder / _MANIFEST, json.dumps(manifest, indent=1).encode())
        for name in names:
            write_atomically(folder / name, (described / name).read_bytes())


def features(class_names: tuple[str, ...]) -> "FeaturesDict":
    """Returns the features of an example, as tensorflow_datasets stores it."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=list(class_names)),
        }
    )


def _describe(
    plan: Plan, examples: Mapping[str, int], sizes: Mapping[str, int], folder: epath.Path
) -> None:
    """Writes `dataset_info.json`, `features.json` and the names of the classes to a folder."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, naming, splits

    identity = dataset_info.DatasetIdentity(
        name=plan.name,
        version=tfds.core.Version(plan.version),
        data_dir=str(folder),
        module_name="",
    )
    info = dataset_info.DatasetInfo(
        builder=identity,
        features=features(plan.class_names),
        supervised_keys=("image", "label"),
        description="Images with one label each.",
    )
    info.set_file_format(FORMAT)
    described = []
    for split in plan.counts:
        files = [shard.file for shard in plan.shards() if shard.split == split]
        template = naming.ShardedFileTemplate(
            data_dir=folder, dataset_name=plan.name, split=split, filetype_suffix=FORMAT
        )
        described.append(
            splits.SplitInfo(
                name=split,
                shard_lengths=[examples[file] for file in files],
                num_bytes=sum(sizes[file] for file in files),
                filename_template=template,
            )
        )
    info.set_splits(splits.SplitDict(described))
    info.write_to_directory(folder)


def _fingerprints(folder: epath.Path, names: Collection[str]) -> dict[str, Fingerprint]:
    """Reads files, several at a time.

    Raises:
      InputError: One cannot be read.
    """
    with (
        ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as pool,
        tqdm(total=len(names), desc="verifying", unit=" files", delay=2) as bar,
    ):
        found = {}
        for name, future in [(n, pool.submit(fingerprint, folder / n)) for n in names]:
            try:
                found[name] = future.result()
            except OSError as error:
                raise InputError(f"{folder / name} cannot be read: {error}") from error
            bar.update()
    return found
