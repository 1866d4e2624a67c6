"""The manifest of a checkpoint: what it holds and the SHA-256 of each of its files, written last.

Neither orbax nor the file system notices a byte that changed in the data of an array. The manifest
does, and because it is the last file to be written, a folder without one was never finished.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping

import jax
import numpy as np
from etils import epath
from jaxtyping import PyTree

from resnet_jax.errors import InputError
from resnet_jax.files import Fingerprint, fingerprint, make_durable

FILENAME = "manifest.json"
_FORMAT = 1
_STEP = re.compile(r"0|[1-9][0-9]*")


class Flaw(Exception):  # noqa: N818 - it is a finding about a folder, not a failure of the program
    """Why a checkpoint cannot be used, worded to follow its name: "is damaged (...)"."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    Attributes:
      step: The step after which the state was saved.
      metric: What "best" is measured by, lower is better; None if it was not measured.
      items: For each named item, its leaves: path, the item's name first, to type and shape as in
        "float32[3,3,64,64]".
    """

    step: int
    metric: float | None
    items: Mapping[str, Mapping[str, str]]


def write(folder: epath.Path, manifest: Manifest) -> None:
    """Makes the files of `folder` durable, then writes their manifest, whole or not at all.

    On a local disk every file and folder has reached the disk before the manifest is there, so that
    older checkpoints may be deleted once this returns.

    Args:
      folder: A checkpoint to which nothing more is written.
      manifest: What it holds.

    Raises:
      OSError: A file cannot be read, or the manifest not be written.
    """
    files = {}
    for name, path in _files(folder).items():
        files[name] = fingerprint(path)
        make_durable(path)
    for path in {(folder / name).parent for name in files} | {folder, folder.parent}:
        make_durable(path)
    temporary = folder / f"{FILENAME}.tmp"
    contents = {"format": _FORMAT, "files": files, **dataclasses.asdict(manifest)}
    temporary.write_bytes(_sealed(contents))
    make_durable(temporary)
    temporary.replace(folder / FILENAME)
    make_durable(folder)


def read(folder: epath.Path, step: int) -> Manifest:
    """Returns the manifest of checkpoint `step`, itself verified; the files are not looked at.

    Raises:
      Flaw: There is none, or it is not as it was written.
      InputError: Another version of resnet_jax wrote it.
    """
    return _parse(folder, step)[0]


def verify(folder: epath.Path, step: int) -> Manifest:
    """Reads every file of checkpoint `step` and compares it with the manifest.

    Returns:
      The manifest, if each file is there, none was added, and all bytes are those written.

    Raises:
      Flaw: Names the first file that differs.
      InputError: Another version of resnet_jax wrote it.
    """
    manifest, expected = _parse(folder, step)
    try:
        found = _files(folder)
        del found[FILENAME]
        if missing := sorted(expected.keys() - found.keys()):
            raise Flaw(f"is damaged ({missing[0]} is missing)")
        if added := sorted(found.keys() - expected.keys()):
            raise Flaw(f"is damaged ({added[0]} is not one of its files)")
        for name, path in found.items():
            actual = fingerprint(path)
            if actual["bytes"] != expected[name]["bytes"]:
                raise Flaw(
                    f"is damaged ({name} has {actual['bytes']} bytes, "
                    f"{expected[name]['bytes']} were written)"
                )
            if actual != expected[name]:
                raise Flaw(f"is damaged ({name} is not what was written)")
    except (OSError, KeyError) as error:
        raise Flaw(f"is damaged (it cannot be read: {error})") from error
    return manifest


def steps(directory: epath.Path) -> list[int]:
    """Returns the steps that have a folder in `directory`, finished or not, ascending."""
    if not directory.exists():
        return []
    names = (path.name for path in directory.iterdir())
    return sorted(int(name) for name in names if _STEP.fullmatch(name))


def survey(directory: epath.Path) -> tuple[list[Manifest], dict[int, str]]:
    """Reads the manifest of every checkpoint in `directory`; the other files are not looked at.

    Returns:
      The manifests by ascending step, and by its step what is wrong with each that has none.

    Raises:
      InputError: Another version of resnet_jax wrote one.
    """
    manifests, flaws = [], {}
    for step in steps(directory):
        try:
            manifests.append(read(directory / str(step), step))
        except Flaw as flaw:
            flaws[step] = str(flaw)
    return manifests, flaws


def best_first(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Returns those that have a metric, the lowest first and of equals the newest."""
    measured = [(one.metric, -one.step, one) for one in manifests if one.metric is not None]
    return [one for _, _, one in sorted(measured, key=lambda entry: entry[:2])]


def leaves(item: str, tree: PyTree) -> dict[str, str]:
    """Returns type and shape of each leaf of an item, as a manifest has them.

    What has no leaves in it, as an optimiser's empty state, counts as one that is "empty".

    Raises:
      TypeError: A leaf is not an array.
    """
    described = {}
    paths = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda node: not jax.tree.leaves(node)
    )
    for path, leaf in paths:
        name = "/".join([item, *(jax.tree_util.keystr((key,), simple=True) for key in path)])
        if not jax.tree.leaves(leaf):
            described[name] = "empty"
            continue
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
            raise TypeError(f"{name} is a {type(leaf).__name__} and only arrays can be saved")
        described[name] = f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
    return described


def refuse_difference(step: int, saved: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Refuses to take the leaves of checkpoint `step` for others.

    Raises:
      InputError: Names the first leaf that differs.
    """
    for name in [*sorted(saved), *here]:
        there, wanted = saved.get(name, "absent"), here.get(name, "absent")
        if there != wanted:
            raise InputError(
                f"checkpoint {step} does not fit: {name} is {there} in it, {wanted} here"
            )


def _parse(folder: epath.Path, step: int) -> tuple[Manifest, Mapping[str, Fingerprint]]:
    try:
        written = (folder / FILENAME).read_bytes()
    except FileNotFoundError as error:
        raise Flaw("is unfinished (it has no manifest)") from error
    except OSError as error:
        raise Flaw(f"is damaged (its manifest cannot be read: {error})") from error
    damaged = Flaw("is damaged (its manifest is not what was written)")
    try:
        contents = json.loads(written)
        del contents["sha256"]
        sealed = _sealed(contents)
    except (ValueError, TypeError, KeyError):
        raise damaged from None
    if written != sealed:
        raise damaged
    if contents["format"] != _FORMAT:
        raise InputError(
            f"checkpoint {step} was written by another version of resnet_jax: its manifest has "
            f"format {contents['format']} and this version reads format {_FORMAT}"
        )
    if contents["step"] != step:
        raise Flaw(f"is damaged (its manifest is that of checkpoint {contents['step']})")
    manifest = Manifest(contents["step"], contents["metric"], contents["items"])
    return manifest, contents["files"]


def _sealed(contents: Mapping[str, object]) -> bytes:
    """Returns the manifest's bytes with their own checksum among them.

    There is one way only to write given contents, so comparing with the bytes that were read finds
    any change to them, the checksum's own and white space included.
    """
    checksum = hashlib.sha256(_encoded(contents)).hexdigest()
    return _encoded({**contents, "sha256": checksum})


def _encoded(contents: Mapping[str, object]) -> bytes:
    return (json.dumps(contents, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _files(folder: epath.Path) -> dict[str, epath.Path]:
    """Returns every file under `folder` by its name relative to it, sorted."""
    files = {}
    folders = [folder]
    for parent in folders:
        for path in parent.iterdir():
            if path.is_dir():
                folders.append(path)
            else:
                files[path.relative_to(folder).as_posix()] = path
    return dict(sorted(files.items()))
