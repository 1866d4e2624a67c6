"""Images in folders: `root/<split>/<class>/*`."""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from etils import epath

from resnet_jax.data.sources import Example, Once, call
from resnet_jax.data.sources.splits import Splits
from resnet_jax.data.sources.storage import cached, read_file
from resnet_jax.errors import InputError
from resnet_jax.files import is_local

_SUFFIXES = (".jpg", ".jpeg", ".png")
_LAYOUT = f"the images have to be <split>/<class>/* in it, as {', '.join(_SUFFIXES)}"

_THREADS = 16
"""Network file systems are slow to answer for each folder."""

_RESOLUTION = 2.0
"""Seconds; two changes of a folder within them may have the same time of change."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class FolderSplit:
    """The images of a split, in an order that does not depend on their classes.

    A key is the path of the file from the root; classes are the folders, sorted by name.
    """

    def __init__(self, root: epath.PathLike, split: str, once: Once = call) -> None:
        """Lists the images of a split in a folder of splits; see `load_images`.

        Raises:
          InputError: There are no classes, one is empty, or another split has other classes.
        """
        root = epath.Path(root)

        def listing() -> tuple[Sequence[str], Sequence[str]]:
            try:
                classes, files = _list_images(root / split)
            except InputError as error:
                raise InputError(f"{error}; of the data in {root}, {_LAYOUT}") from error
            _check_classes(root, split, classes)
            return classes, files

        classes, self._files = once(listing)
        self.class_names = tuple(classes)
        self._labels = {name: label for label, name in enumerate(self.class_names)}
        self._root = root
        self._split = split

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int, /) -> Example:
        file = self._files[index]
        key = f"{self._split}/{file}"
        try:
            image = read_file(os.path.join(self._root, key))
        except OSError as error:
            raise InputError(f"image {key} of {self._root} cannot be read: {error}") from error
        return Example(image, self._labels[file.split("/", 1)[0]], key)


def folder_splits(root: epath.PathLike, once: Once = call) -> Splits:
    """Returns the splits of a folder, which has to have folders in it; see `load_images`."""
    root = epath.Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; {_LAYOUT}")
    splits = _folders_in(root)
    if not splits:
        raise InputError(f"{root} has no folders; {_LAYOUT}")
    return {split: partial(FolderSplit, root, split, once) for split in splits}


def _check_classes(root: epath.Path, split: str, classes: tuple[str, ...]) -> None:
    """Refuses a split that lacks a class of another: its labels would mean something else."""
    for other in _folders_in(root):
        others = set(_folders_in(root / other))
        # A folder that shares no class is another data set.
        if others.isdisjoint(classes) or others == set(classes):
            continue
        name = min(others.symmetric_difference(classes))
        has, lacks = (other, split) if name in others else (split, other)
        raise InputError(
            f"class {name} is in {root / has} and not in {root / lacks}; labels number the sorted "
            "class folders, so that all splits have to have the same"
        )


def _folders_in(folder: epath.Path) -> tuple[str, ...]:
    """Returns the names of the folders in a folder, sorted, without the hidden ones."""
    if is_local(folder):
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    else:
        paths = list(folder.iterdir())
        are_folders = _map(lambda path: path.is_dir(), paths)
        names = [path.name for path, is_dir in zip(paths, are_folders, strict=True) if is_dir]
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _list_images(folder: epath.Path) -> tuple[tuple[str, ...], Sequence[str]]:
    """Returns the classes, sorted, and `class/name` of every image.

    The images are in the order of a hash of that, which is the same everywhere and independent of
    the classes: each slice is a fair sample.

    The list of a local folder is cached beside it as `listing-<folder>`, for as long as the class
    folders and their times of change stay the same. A file that comes or goes changes its folder's
    time.
    """
    classes = _folders_in(folder)
    if not classes:
        raise InputError(f"{folder} has no folders of images, one a class")
    folders = [folder / name for name in classes]

    def images() -> list[str]:
        names = _map(_images_in, folders)
        for path, of_class in zip(folders, names, strict=True):
            if not of_class:
                raise InputError(f"{path} has no images ({', '.join(_SUFFIXES)})")
        files = zip(classes, names, strict=True)
        return sorted((f"{name}/{image}" for name, some in files for image in some), key=_hash)

    if is_local(folder):
        times = _map(lambda path: os.stat(path).st_mtime_ns, folders)
        if max(times) / 1e9 < time.time() - _RESOLUTION:
            parent = epath.Path(os.path.abspath(folder)).parent
            return classes, cached(parent, f"listing-{folder.name}", [*classes, *times], images)
    return classes, images()


def _images_in(folder: epath.Path) -> list[str]:
    names = os.listdir(folder) if is_local(folder) else [path.name for path in folder.iterdir()]
    return [n for n in names if n.lower().endswith(_SUFFIXES) and not n.startswith(".")]


def _hash(file: str) -> bytes:
    # Names that are not Unicode come from the file system as surrogates.
    return hashlib.blake2b(file.encode(errors="surrogateescape"), digest_size=16).digest()


def _map(function: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="listing") as pool:
        return list(pool.map(function, items))
