"""Compares a prepared data set with what was written."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

from etils import epath
from tqdm import tqdm

from resnet_jax.data.prepare.info import LAST
from resnet_jax.data.prepare.progress import unfinished
from resnet_jax.data.prepare.shards import fingerprint
from resnet_jax.data.sources.prepared import prepared_splits
from resnet_jax.errors import InputError

MANIFEST = "manifest.json"

FORMAT = 1
_THREADS = 8


class Print(TypedDict):
    """What is kept of a file."""

    bytes: int
    sha256: str


class _Manifest(TypedDict):
    format: int
    plan: Mapping[str, object]
    examples: Mapping[str, int]
    files: Mapping[str, Print]


def verify(out: epath.PathLike, name: str, version: str = "1.0.0") -> Mapping[str, int]:
    """Reads every file of a data set that `prepare` wrote, and compares it with what was written.

    Args:
      out: Where data sets of tensorflow_datasets are.
      name: The data set.
      version: Its version.

    Returns:
      How many examples each split has.

    Raises:
      InputError: There is none, it is not finished, or a file differs; the message names it.
    """
    folder = epath.Path(out).expanduser() / name / version
    if not (folder / LAST).exists():
        if unfinished(folder):
            raise InputError(f"{folder} is not finished; the command that began it goes on")
        raise InputError(f"there is no prepared data set {folder}")
    manifest = read_manifest(folder)
    check_files(folder, manifest["files"])
    splits = prepared_splits(f"{name}:{version}", out)
    lengths = {split: len(open_split()) for split, open_split in splits.items()}
    if lengths != manifest["examples"]:
        raise InputError(f"{folder} has another number of examples than was written")
    return lengths


def examples_in(folder: epath.Path) -> Mapping[str, int]:
    """Returns how many examples each split of a finished data set has."""
    return read_manifest(folder)["examples"]


def read_manifest(folder: epath.Path) -> _Manifest:
    """Returns what was written to a folder.

    Raises:
      InputError: Something else than `prepare` wrote it, or another version of that.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] == FORMAT:
            return manifest
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} has no {MANIFEST} that can be read, so that there is nothing to compare it "
            "with"
        ) from error
    raise InputError(f"another version of resnet_jax prepared {folder}")


def check_files(folder: epath.Path, files: Mapping[str, Print]) -> None:
    """Reads files and compares them.

    Args:
      folder: Where they are.
      files: What each was when it was written, by its name.

    Raises:
      InputError: Names the first that differs.
    """

    def check(name: str) -> None:
        path, expected = folder / name, files[name]
        try:
            size, sha256 = fingerprint(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        if size != expected["bytes"]:
            raise InputError(
                f"{path} has {size} bytes, {expected['bytes']} were written; delete the folder and "
                "prepare it again"
            )
        if sha256 != expected["sha256"]:
            raise InputError(
                f"{path} is not what was written; delete the folder and prepare it again"
            )
        bar.update(size)

    total = sum(each["bytes"] for each in files.values())
    with (
        tqdm(total=total, desc="verifying", unit="B", unit_scale=True, delay=2) as bar,
        ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as pool,
    ):
        for _ in pool.map(check, files):
            pass
