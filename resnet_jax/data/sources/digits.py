"""Handwritten digits that come with the package."""

from functools import partial

import numpy as np
from etils import epath

from resnet_jax.data.sources.source import Example
from resnet_jax.data.sources.splits import Splits
from resnet_jax.errors import unknown

_SPLITS = {"train": slice(0, 1437), "test": slice(1437, 1797)}


class Digits:
    """1,797 handwritten digits of 8x8 grey pixels: 1,437 for training, 360 for testing.

    They stand in the order of the forms on which 13 people wrote them, about 130 digits a form (the
    labels repeat with the forms). Those for testing are from other forms than those for training,
    but for the one that the split cuts: 22 of its digits are for training. That is harder than a
    random split, where every hand is known from training.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998, doi 10.24432/C50P49, CC BY 4.0; `digits.LICENSE.md` lists the
    changes.
    """

    class_names: tuple[str, ...] = tuple("0123456789")

    def __init__(self, split: str) -> None:
        """Loads a split.

        Args:
          split: "train" or "test".

        Raises:
          InputError: There is no such split.
        """
        if split not in _SPLITS:
            raise unknown("split of digits", split, _SPLITS)
        rows = _SPLITS[split]
        path = epath.resource_path("resnet_jax.data.sources") / "digits.npz"
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            self._images = arrays["image"][rows, ..., np.newaxis]
            self._labels = arrays["label"][rows]
        self._first = rows.start

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int, /) -> Example:
        position = range(len(self))[index]
        return Example(
            image=self._images[position],
            label=int(self._labels[position]),
            key=f"digits/{self._first + position:04}",
        )


def digits_splits() -> Splits:
    """Returns the splits, "train" and "test"."""
    return {split: partial(Digits, split) for split in _SPLITS}
