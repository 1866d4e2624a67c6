"""The manifest of a checkpoint: its leaves, and the SHA-256 of each of its files; written last.

Neither orbax nor the file system notices a byte that changed in the data of an array; the manifest
does. A folder without one was never finished. What an evaluation measures later is beside it.

Damage is a file that is missing, or was read and differs: a `Flaw`. So are files without permission
to read. Files that were added, such as `.nfs0001` of a network file system, are ignored. Another
error of reading is not damage: it is tried again, as many pass, and then an `OSError`.
"""

import contextlib
import errno
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.files import Fingerprint, fingerprint, make_durable, write_atomically

FILENAME = "manifest.json"
_FORMAT = 1
_STEP = re.compile(r"0|[1-9][0-9]*")
_WAITS = (0.2, 1.0, 5.0)  # seconds before another try to read
_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_FORBIDDEN = "cannot be read (permission denied)"

T = TypeVar("T")


class Flaw(Exception):  # noqa: N818 (a property of a folder, not a failure of the program)
    """Why a checkpoint cannot be used, worded to follow its name: "is damaged (...)"."""


class Manifest(NamedTuple):
    """The contents of a checkpoint."""

    step: int  # after which the state was saved
    metric: float | None  # the measure of "best", lower is better; None if it was not measured yet
    items: Mapping[str, Mapping[str, str]]  # for each named item, `leaves.describe` of it
    files: Mapping[str, Fingerprint]  # by the path relative to the checkpoint


class Evaluation(NamedTuple):
    """What was measured of a checkpoint after it was saved, and what follows from it."""

    metric: float
    plateau: Mapping[str, float] | None = None  # the schedule's numbers by name, if it has them


def write(
    folder: epath.Path, step: int, metric: float | None, items: Mapping[str, Mapping[str, str]]
) -> None:
    """Makes the files of `folder` durable, then writes their manifest, whole or not at all.

    On a local disk every file and folder has reached the disk before the manifest is there, so that
    older checkpoints may be deleted once this returns. The metric is a finite number or None.
    """
    fingerprints = {}
    for name, path in files(folder).items():
        fingerprints[name] = fingerprint(path)
        make_durable(path)
    for path in {(folder / name).parent for name in fingerprints} | {folder, folder.parent}:
        make_durable(path)
    manifest = Manifest(step, metric, items, fingerprints)
    write_atomically(folder / FILENAME, _sealed({"format": _FORMAT, **manifest._asdict()}))


def read(folder: epath.Path, step: int) -> Manifest:
    """Returns the manifest of checkpoint `step`, itself verified; the other files are not read.

    Raises:
      Flaw: It is missing, differs from what was written, or may not be read.
      InputError: Another version of resnet_jax wrote it.
    """
    try:
        written = _retried(lambda path: path.read_bytes(), folder / FILENAME)
    except _MISSING as error:
        raise Flaw("is unfinished (it has no manifest)") from error
    except PermissionError as error:
        raise Flaw(_FORBIDDEN) from error
    contents = _unsealed(written, "its manifest")
    if (format_ := contents.pop("format")) != _FORMAT:
        raise InputError(
            f"checkpoint {step} was written by another version of resnet_jax: its manifest has "
            f"format {format_} and this version reads format {_FORMAT}"
        )
    manifest = Manifest(**contents)
    if manifest.step != step:
        raise Flaw(f"is damaged (its manifest is that of checkpoint {manifest.step})")
    if manifest.metric is None:
        with contextlib.suppress(Flaw):  # a damaged one counts as missing
            if evaluation := read_evaluation(folder, step):
                manifest = manifest._replace(metric=evaluation.metric)
    return manifest


def evaluation_path(folder: epath.Path) -> epath.Path:
    """Returns the path of a checkpoint's evaluation, outside of the folder, which is complete."""
    return folder.with_name(f"metric-{folder.name}.json")


def write_evaluation(folder: epath.Path, step: int, evaluation: Evaluation) -> None:
    """Writes the evaluation of checkpoint `step`, whole or not at all."""
    contents = {"step": step, **evaluation._asdict()}
    write_atomically(evaluation_path(folder), _sealed(contents))


def read_evaluation(folder: epath.Path, step: int) -> Evaluation | None:
    """Returns what `write_evaluation` wrote; None where it did not.

    Raises:
      Flaw: It differs from what was written, or may not be read.
    """
    path = evaluation_path(folder)
    try:
        written = _retried(lambda path: path.read_bytes(), path)
    except _MISSING:
        return None
    except PermissionError as error:
        raise Flaw(_FORBIDDEN) from error
    contents = _unsealed(written, path.name)
    if (other := contents.pop("step")) != step:
        raise Flaw(f"is damaged ({path.name} is that of checkpoint {other})")
    return Evaluation(**contents)


def verify(folder: epath.Path, step: int) -> Manifest:
    """Reads every file of checkpoint `step`, compares it with the manifest, and returns that.

    Raises:
      Flaw: Names the first file that is missing or differs; or one may not be read.
      InputError: Another version of resnet_jax wrote the manifest.
    """
    manifest = read(folder, step)
    for name, expected in sorted(manifest.files.items()):
        try:
            there = _retried(fingerprint, folder / name)
        except _MISSING as error:
            raise Flaw(f"is damaged ({name} is missing)") from error
        except PermissionError as error:
            raise Flaw(_FORBIDDEN) from error
        if there != expected:
            raise Flaw(f"is damaged ({name} is not what was written)")
    return manifest


def names(folder: epath.Path) -> list[str]:
    """Returns the names of the files and folders in a folder; none where it is missing."""
    try:
        return _retried(lambda folder: [path.name for path in folder.iterdir()], folder)
    except _MISSING:
        return []


def files(folder: epath.Path) -> dict[str, epath.Path]:
    """Returns every file under `folder` by its name relative to it."""
    paths = {}
    folders = [folder]
    for parent in folders:
        for path in parent.iterdir():
            if path.stat().is_directory:  # unlike `is_dir`, raises where this cannot be read
                folders.append(path)
            else:
                paths[path.relative_to(folder).as_posix()] = path
    return paths


def is_finished(folder: epath.Path) -> bool:
    """Whether a checkpoint, damaged or not, has a manifest, or may not be looked into."""
    try:
        return FILENAME in names(folder)
    except PermissionError:
        return True


def steps(directory: epath.Path) -> list[int]:
    """Returns the steps that have a folder in `directory`, finished or not, ascending."""
    return sorted(int(name) for name in names(directory) if _STEP.fullmatch(name))


def finished_steps(directory: epath.Path) -> list[int]:
    """Returns the steps of the checkpoints in `directory` that were finished, ascending."""
    return [step for step in steps(directory) if is_finished(directory / str(step))]


def survey(directory: epath.Path) -> tuple[list[Manifest], dict[int, str]]:
    """Reads the manifest of every checkpoint in `directory`; the other files are not read.

    Returns:
      The manifests by ascending step, and by its step the flaw of each that has none.

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


def outdated(manifests: Sequence[Manifest], keep_newest: int, keep_best: int) -> list[Manifest]:
    """Returns those, of manifests by ascending step, that are neither among the newest nor best."""
    best = best_first(manifests)[:keep_best]
    return [one for one in manifests[:-keep_newest] if one not in best]


def _sealed(contents: Mapping[str, object]) -> bytes:
    """Returns the manifest's bytes with their own checksum among them.

    There is one way only to write given contents, so comparing with the bytes that were read finds
    any change to them, the checksum's own and white space included.
    """
    checksum = hashlib.sha256(_encoded(contents)).hexdigest()
    return _encoded({**contents, "sha256": checksum})


def _unsealed(written: bytes, name: str) -> dict[str, Any]:
    """Returns the contents of `_sealed` bytes.

    Raises:
      Flaw: They are not what was written.
    """
    try:
        contents = json.loads(written)
        del contents["sha256"]
        if written == _sealed(contents):
            return contents
    except (ValueError, TypeError, KeyError):
        pass
    raise Flaw(f"is damaged ({name} is not what was written)")


def _encoded(contents: Mapping[str, object]) -> bytes:
    return (json.dumps(contents, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _retried(read: Callable[[epath.Path], T], path: epath.Path) -> T:
    """Returns `read(path)`, tried again after an error that may pass."""
    for wait in (*_WAITS, None):
        try:
            return read(path)
        except _MISSING:
            raise
        except OSError as error:
            if wait is None:
                reason = f"{path} cannot be read ({error.strerror or error})"
                raise OSError(
                    error.errno or errno.EIO, f"{reason}; no checkpoint was moved or deleted"
                ) from error
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")
