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
from resnet_jax.errors import InputError
from resnet_jax.files import Fingerprint, fingerprint, write_atomically

if TYPE_CHECKING:  # it takes a second to import
    from tensorflow_datasets.core.features import FeaturesDict

UNFINISHED = ".progress/plan.json"
BAD = "bad.jsonl"
LAST = "features.json"

_MANIFEST = "manifest.json"
_MANIFEST_FORMAT = 1
_THREADS = 8


class Manifest(TypedDict):
    """The plan of a finished data set, the number of examples of each split, and its files."""

    format: int
    plan: Mapping[str, object]
    examples: Mapping[str, int]
    files: Mapping[str, Fingerprint]


def verify(out: epath.PathLike, name: str, version: str = "1.0.0") -> Mapping[str, int]:
    """Reads every file of a data set that `prepare` wrote to `out`, and compares its hash.

    Returns:
      Number of examples of each split.

    Raises:
      InputError: The data set is missing or not finished, or a file differs; the message names it.
    """
    folder = epath.Path(out).expanduser() / name / version
    if not (folder / LAST).exists():
        if (folder / UNFINISHED).exists():
            raise InputError(f"{folder} is not finished; the command that began it goes on")
        raise InputError(f"there is no prepared data set {folder}")
    manifest = read_manifest(folder)
    try:
        found = _fingerprints(folder, manifest["files"])
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error}") from error
    for file, expected in manifest["files"].items():
        if found[file] != expected:
            raise InputError(
                f"{folder / file} is not what was written; delete the folder and prepare it again"
            )
    return manifest["examples"]


def read_manifest(folder: epath.Path) -> Manifest:
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


def finish(folder: epath.Path, plan: Plan, shards: Mapping[str, int]) -> None:
    """Makes a data set of shards that are in place, given the number of examples of each file."""
    files = _fingerprints(folder, [*shards, *[BAD] * (folder / BAD).exists()])
    with tempfile.TemporaryDirectory() as scratch:
        described = epath.Path(scratch)
        _describe(plan, shards, files, described)
        names = sorted(path.name for path in described.iterdir() if path.name != LAST)
        names.append(LAST)
        manifest: Manifest = {
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
    plan: Plan, shards: Mapping[str, int], files: Mapping[str, Fingerprint], folder: epath.Path
) -> None:
    """Writes `dataset_info.json`, `features.json` and the names of the classes to a folder."""
    from tensorflow_datasets.core import Version, dataset_info, naming, splits

    info = dataset_info.DatasetInfo(
        builder=dataset_info.DatasetIdentity(
            name=plan.name, version=Version(plan.version), data_dir=str(folder), module_name=""
        ),
        features=features(plan.class_names),
        supervised_keys=("image", "label"),
        description="Images with one label each.",
    )
    info.set_file_format(FORMAT)
    described = []
    for split in plan.counts:
        names = [shard.file for shard in plan.shards() if shard.split == split]
        template = naming.ShardedFileTemplate(
            data_dir=folder, dataset_name=plan.name, split=split, filetype_suffix=FORMAT
        )
        described.append(
            splits.SplitInfo(
                name=split,
                shard_lengths=[shards[name] for name in names],
                num_bytes=sum(files[name]["bytes"] for name in names),
                filename_template=template,
            )
        )
    info.set_splits(splits.SplitDict(described))
    info.write_to_directory(folder)


def _fingerprints(folder: epath.Path, names: Collection[str]) -> dict[str, Fingerprint]:
    """Reads files, several at a time."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as pool:
        found = pool.map(lambda name: fingerprint(folder / name), names)
        bar = tqdm(found, desc="verifying", total=len(names), unit=" files", delay=2)
        return dict(zip(names, bar, strict=True))
