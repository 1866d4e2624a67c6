"""The image files of a folder of class folders, listed once and remembered."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from etils import epath

from resnet_jax.data.sources import kept
from resnet_jax.data.sources.ranged import object_store
from resnet_jax.errors import InputError
from resnet_jax.files import is_local

SUFFIXES = (".jpg", ".jpeg", ".png")

_VERSION = 1
_THREADS = 16
"""File systems of a network take their time for each folder."""

_SETTLED = 2.0
"""Seconds after which a folder's change shows in its time of change on any file system."""


class Listing(NamedTuple):
    """What a folder of class folders holds.

    Attributes:
      classes: The names of the class folders, sorted.
      files: `class/name` of every image. They are in the order of a hash of that, which is the same
        everywhere and has nothing to do with the classes: each slice is a fair sample.
    """

    classes: tuple[str, ...]
    files: tuple[str, ...]


def folders_in(folder: epath.Path) -> tuple[str, ...]:
    """Returns the names of the folders in a folder, sorted; hidden ones are left out."""
    if is_local(folder):
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    elif (store := object_store(folder)) is not None:
        found = store.ls(os.fspath(folder), detail=True)
        folders = [one["name"] for one in found if one["type"] == "directory"]
        names = [os.path.basename(name.rstrip("/")) for name in folders]
    else:
        paths = list(folder.iterdir())
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="listing") as pool:
            are = pool.map(lambda path: path.is_dir(), paths)
            names = [path.name for path, is_dir in zip(paths, are, strict=True) if is_dir]
    return tuple(sorted(name for name in names if not name.startswith(".")))


def list_images(folder: epath.Path) -> Listing:
    """Lists the images in the class folders of a folder.

    The list of a local folder is kept in `.listing-<folder>.json` beside it or, where that cannot
    be written, in the user's cache. It is made anew when a file has come or gone (which changes its
    class folder's time of change) or a class has. Nothing is kept of an object store.

    Args:
      folder: What has the class folders.

    Raises:
      InputError: There is no class folder, or one has no images.
    """
    classes = folders_in(folder)
    if not classes:
        raise InputError(f"{folder} has no folders of images, one a class")
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="listing") as pool:
        folders = [folder / name for name in classes]
        state, places = None, ()
        if is_local(folder):
            times = pool.map(lambda path: os.stat(path).st_mtime_ns, folders)
            state = dict(zip(classes, times, strict=True))
            places = kept.places(
                epath.Path(os.path.abspath(folder)).parent, f"listing-{folder.name}.json"
            )
            for path in places:
                files = _read(path, state)
                if files is not None:
                    return Listing(classes, files)
        images = dict(zip(classes, pool.map(_images_in, folders), strict=True))
    for name in classes:
        if not images[name]:
            raise InputError(f"{folder / name} has no images ({', '.join(SUFFIXES)})")
    files = tuple(
        sorted((f"{name}/{image}" for name in classes for image in images[name]), key=_hash)
    )
    if state is not None and max(state.values()) / 1e9 < time.time() - _SETTLED:
        content = {"version": _VERSION, "classes": state, "files": files}
        kept.keep(json.dumps(content).encode(), places)
    return Listing(classes, files)


def _images_in(folder: epath.Path) -> list[str]:
    names = os.listdir(folder) if is_local(folder) else [path.name for path in folder.iterdir()]
    return [n for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(".")]


def _hash(file: str) -> bytes:
    # Names that are no Unicode come from the file system as surrogates.
    return hashlib.blake2b(file.encode(errors="surrogateescape"), digest_size=16).digest()


def _read(path: epath.Path, state: Mapping[str, int]) -> tuple[str, ...] | None:
    """Returns the files of a list that is whole and of this state of the class folders."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):  # not there, not readable, torn
        return None
    if not isinstance(content, dict):
        return None
    if (content.get("version"), content.get("classes")) != (_VERSION, state):
        return None
    return tuple(content["files"])
