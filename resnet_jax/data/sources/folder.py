"""Images in folders: `root/<split>/<class>/*`."""

import os
from functools import partial

import numpy as np
from etils import epath

from resnet_jax.data.sources.listing import SUFFIXES, folders_in, list_images
from resnet_jax.data.sources.ranged import RangedReader
from resnet_jax.data.sources.source import Example
from resnet_jax.data.sources.splits import Splits
from resnet_jax.errors import InputError

_LAYOUT = f"the images have to be <split>/<class>/* in it, as {', '.join(SUFFIXES)}"


class FolderSplit:
    """The images of a split, in an order that has nothing to do with their classes.

    A key is the path of the file from the root.

    Attributes:
      class_names: The names of the class folders, sorted.
    """

    class_names: tuple[str, ...]

    def __init__(self, root: epath.PathLike, split: str) -> None:
        """Lists the images.

        Args:
          root: The folder that has the splits.
          split: The name of one.

        Raises:
          InputError: There are no classes, one is empty, or another split has other classes.
        """
        root = epath.Path(root)
        try:
            self.class_names, files = list_images(root / split)
        except InputError as error:
            raise InputError(f"{error}; of the data in {root}, {_LAYOUT}") from error
        _check_classes(root, split, self.class_names)
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self._labels = np.array([numbers[f.split("/", 1)[0]] for f in files], np.int32)
        self._files = files
        self._root = root
        self._reader = RangedReader()
        self._split = split

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int, /) -> Example:
        key = f"{self._split}/{self._files[index]}"
        try:
            image = self._reader.read_whole(os.path.join(self._root, key))
        except OSError as error:
            raise InputError(f"image {key} of {self._root} cannot be read: {error}") from error
        return Example(image, int(self._labels[index]), key)


def folder_splits(root: epath.PathLike) -> Splits:
    """Returns the splits of a folder.

    Args:
      root: The folder that has the splits.

    Raises:
      InputError: There is no such folder, or no folders are in it.
    """
    root = epath.Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; {_LAYOUT}")
    splits = folders_in(root)
    if not splits:
        raise InputError(f"{root} has no folders; {_LAYOUT}")
    return {split: partial(FolderSplit, root, split) for split in splits}


def _check_classes(root: epath.Path, split: str, classes: tuple[str, ...]) -> None:
    """Refuses a split that lacks a class of another: its labels would mean something else."""
    for other in folders_in(root):
        others = set(folders_in(root / other))
        # A folder that shares no class is something else, and nothing of ours.
        if others.isdisjoint(classes) or others == set(classes):
            continue
        name = min(others.symmetric_difference(classes))
        has, lacks = (other, split) if name in others else (split, other)
        raise InputError(
            f"class {name} is in {root / has} and not in {root / lacks}; labels number the sorted "
            "class folders, so that all splits have to have the same"
        )
