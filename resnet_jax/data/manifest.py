"""The plan of a prepared data set, and the files beside its shards: description and manifest.

`features.json` is written last; without it tensorflow_datasets finds no data set.
"""

import contextlib
import dataclasses
import json
import reprlib
import tempfile
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from etils import epath
from flax.traverse_util import flatten_dict
from tqdm import tqdm

from resnet_jax.errors import InputError
from resnet_jax.files import Fingerprint, fingerprint, write_atomically

if TYPE_CHECKING:  # it takes a second to import
    from tensorflow_datasets.core.features import FeaturesDict

FORMAT = "array_record"
"""The format that is written; TFRecord is only read."""

BAD = "bad.jsonl"
LAST = "features.json"

_MANIFEST = "manifest.json"
_MANIFEST_FORMAT = 1
_THREADS = 8


@dataclasses.dataclass(frozen=True)
class Settings:
    """How images are stored; a value out of range is an `InputError`.

    Attributes:
      shorter_side: The most pixels of the shorter of height and width; None for any number.
      quality: Quality of the JPEGs that are encoded, 1 to 100.
      examples_per_shard: About how many examples a file has.
      format: Of the files.
    """

    shorter_side: int | None = None
    quality: int = 90
    examples_per_shard: int = 2048
    format: str = dataclasses.field(default=FORMAT, init=False)

    def __post_init__(self) -> None:
        if self.shorter_side is not None and self.shorter_side < 1:
            raise InputError(f"the shorter side has at least 1 pixel, not {self.shorter_side}")
        if not 1 <= self.quality <= 100:
            raise InputError(f"the quality of a JPEG is 1 to 100, not {self.quality}")
        if self.examples_per_shard < 1:
            raise InputError(f"a file has at least 1 example, not {self.examples_per_shard}")


class Shard(NamedTuple):
    """A file of the data set, and the indices of its examples in a split of the source."""

    file: str
    split: str
    indices: range


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that decides about the bytes of a prepared data set, besides its images.

    Attributes:
      counts: Number of examples of each split of the source.
      encoder: The JPEG encoder; another one encodes the same image to other bytes.
    """

    name: str
    version: str
    settings: Settings
    class_names: list[str]
    counts: Mapping[str, int]
    encoder: str

    def shards(self) -> Iterator[Shard]:
        """Yields the files in the order in which they are written."""
        for split, count in self.counts.items():
            number = -(-count // self.settings.examples_per_shard)
            for shard in range(number):
                file = f"{self.name}-{split}.{FORMAT}-{shard:05}-of-{number:05}"
                start, stop = count * shard // number, count * (shard + 1) // number
                yield Shard(file, split, range(start, stop))

    def refuse_other(self, folder: epath.Path, how: str, other: Mapping[str, object]) -> None:
        """Refuses a folder that was "begun" or "prepared" (`how`) by another plan, of JSON."""
        before, now = (flatten_dict(tree, sep=".") for tree in (other, dataclasses.asdict(self)))
        for key in [*now, *before]:
            one, another = before.get(key), now.get(key)
            if one != another:
                raise InputError(
                    f"{folder} was {how} with {key} {reprlib.repr(one)} and not "
                    f"{reprlib.repr(another)}; take another place or version, or delete it"
                )


class Manifest(TypedDict):
    """The plan of a finished data set, the number of examples of each split, and its files."""

    format: int
    plan: Mapping[str, object]
    examples: Mapping[str, int]
    files: Mapping[str, Fingerprint]


def verify(out: epath.PathLike, name: str, version: str = "1.0.0") -> Mapping[str, int]:
    """Compares the hash of every file of a data set that `prepare` wrote to `out`.

    Returns:
      Number of examples of each split.

    Raises:
      InputError: The data set is missing or not finished, or a file differs; the message names it.
    """
    folder = epath.Path(out).expanduser() / name / version
    if not folder.exists():
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
    """Returns the manifest of a finished data set, and refuses any other folder."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        if manifest["format"] == _MANIFEST_FORMAT and (folder / LAST).exists():
            return manifest
    raise InputError(
        f"{folder} has no {_MANIFEST} of a finished data set; prepare it, or delete the folder and "
        "prepare it again"
    )


def finish(folder: epath.Path, plan: Plan, shards: Mapping[str, Mapping[str, int]]) -> None:
    """Makes a data set of shards that are in place: the number of examples of each, by split."""
    names = [name for of_split in shards.values() for name in of_split]
    files = _fingerprints(folder, [*names, *[BAD] * (folder / BAD).exists()])
    with tempfile.TemporaryDirectory() as scratch:
        described = epath.Path(scratch)
        _describe(plan, shards, files, described)
        names = sorted(path.name for path in described.iterdir() if path.name != LAST)
        names.append(LAST)
        manifest: Manifest = {
            "format": _MANIFEST_FORMAT,
            "plan": dataclasses.asdict(plan),
            "examples": {split: sum(counts.values()) for split, counts in shards.items()},
            "files": {**files, **_fingerprints(described, names)},
        }
        write_atomically(folder / _MANIFEST, json.dumps(manifest, indent=1).encode())
        for name in names:
            write_atomically(folder / name, (described / name).read_bytes())


def image_features(class_names: list[str]) -> "FeaturesDict":
    """Returns the features of an example, as tensorflow_datasets stores it."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=class_names),
        }
    )


def _describe(
    plan: Plan,
    shards: Mapping[str, Mapping[str, int]],
    files: Mapping[str, Fingerprint],
    folder: epath.Path,
) -> None:
    """Writes `dataset_info.json`, `features.json` and the names of the classes to a folder."""
    from tensorflow_datasets.core import Version, dataset_info, naming, splits

    info = dataset_info.DatasetInfo(
        builder=dataset_info.DatasetIdentity(
            name=plan.name, version=Version(plan.version), data_dir=str(folder), module_name=""
        ),
        features=image_features(plan.class_names),
        supervised_keys=("image", "label"),
        description="Images with one label each.",
    )
    info.set_file_format(FORMAT)
    described = [
        splits.SplitInfo(
            name=split,
            shard_lengths=list(counts.values()),
            num_bytes=sum(files[file]["bytes"] for file in counts),
            filename_template=naming.ShardedFileTemplate(
                data_dir=folder, dataset_name=plan.name, split=split, filetype_suffix=FORMAT
            ),
        )
        for split, counts in shards.items()
    ]
    info.set_splits(splits.SplitDict(described))
    info.write_to_directory(folder)


def _fingerprints(folder: epath.Path, names: Collection[str]) -> dict[str, Fingerprint]:
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as pool:
        found = pool.map(lambda name: fingerprint(folder / name), names)
        bar = tqdm(found, desc="verifying", total=len(names), unit=" files", delay=2)
        return dict(zip(names, bar, strict=True))
