"""Handwritten digits: those that come with the package, and MNIST from its own files."""

import gzip
import math
import zlib
from functools import partial

import numpy as np
from etils import epath
from jaxtyping import UInt8

from resnet_jax.data.sources import Example
from resnet_jax.data.sources.splits import Splits
from resnet_jax.errors import InputError, unknown

_SPLITS = {"train": slice(0, 1437), "test": slice(1437, 1797)}

_PREFIXES = {"train": "train", "test": "t10k"}
_SIDE = 28
_BORDER = 2
_UNSIGNED_BYTES = 8
_MOST_BYTES = 2**30


class _Pixels:
    """Images of digits in memory."""

    class_names: tuple[str, ...] = tuple("0123456789")
    _images: UInt8[np.ndarray, "n h w 1"]
    _labels: np.ndarray
    _key: str  # a format of the index
    _first: int = 0

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int, /) -> Example:
        position = range(len(self))[index]
        key = self._key.format(self._first + position)
        return Example(self._images[position], int(self._labels[position]), key)


class Digits(_Pixels):
    """1,797 handwritten digits of 8x8 grey pixels: 1,437 for training, 360 for testing.

    They stand in the order of the forms on which 13 people wrote them, about 130 digits a form (the
    labels repeat with the forms). Those for testing are from other forms than those for training,
    but for the one that the split cuts: 22 of its digits are for training. That is harder than a
    random split, where every hand is known from training.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998, doi 10.24432/C50P49, CC BY 4.0; `digits.LICENSE.md` lists the
    changes.
    """

    _key = "digits/{:04}"

    def __init__(self, split: str) -> None:
        """Loads a split, "train" or "test".

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


class Mnist(_Pixels):
    """A split of MNIST: grey images of 32x32 pixels, a digit of 28x28 in the middle of each.

    The border of 2 black pixels is that of LeNet-5's images (LeCun et al. 1998, section III.A: no
    corner of a digit is lost at the edge). To have the 28x28 pixels of the files, take
    `data.image_size` 28 with `data.eval_resize` 32: a crop of the centre, which resamples nothing.

    Files of the same form and names, such as those of Fashion-MNIST, can be read too; their classes
    are called "0" to "9" all the same.
    """

    def __init__(self, root: epath.PathLike, split: str) -> None:
        """Reads a split, "train" or "test".

        The folder has the IDX files, gzipped or not: `train-images-idx3-ubyte[.gz]`,
        `train-labels-idx1-ubyte[.gz]`, `t10k-images-...` and `t10k-labels-...`.

        Raises:
          InputError: There is no such split, a file is missing, damaged or of another kind, or
            images and labels do not belong together.
        """
        if split not in _PREFIXES:
            raise unknown("split of mnist", split, _PREFIXES)
        root, prefix = epath.Path(root).expanduser(), _PREFIXES[split]
        images_path = _find(root, f"{prefix}-images-idx3-ubyte")
        labels_path = _find(root, f"{prefix}-labels-idx1-ubyte")
        digits, self._labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if digits.shape[1:] != (_SIDE, _SIDE):
            height, width = digits.shape[1:]
            raise InputError(f"{images_path} has images of {height}x{width} pixels, not of 28x28")
        if len(digits) != len(self._labels):
            raise InputError(
                f"{images_path} has {len(digits)} images and {labels_path} has "
                f"{len(self._labels)} labels; they do not belong together"
            )
        if len(digits) and self._labels.max() >= len(self.class_names):
            raise InputError(f"{labels_path} has label {self._labels.max()}; digits end at 9")
        side = _SIDE + 2 * _BORDER
        self._images = np.zeros((len(digits), side, side, 1), np.uint8)
        self._images[:, _BORDER:-_BORDER, _BORDER:-_BORDER, 0] = digits
        self._key = f"mnist/{split}/{{:05}}"


def digits_splits() -> Splits:
    """Returns the splits of `Digits`."""
    return {split: partial(Digits, split) for split in _SPLITS}


def mnist_splits(root: epath.PathLike) -> Splits:
    """Returns the splits of `Mnist`."""
    return {split: partial(Mnist, root, split) for split in _PREFIXES}


def read_idx(path: epath.PathLike, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """Returns the array of unsigned bytes of an IDX file, gzipped where its name ends in `.gz`.

    Its header alone never decides how much is read.

    Raises:
      InputError: The file is of another kind, damaged, larger than 1 GiB, or has another number of
        dimensions.
    """
    path = epath.Path(path)
    try:
        with path.open("rb") as file:
            unzipped = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            # Two zeros, the type, the number of dimensions; then each, four bytes, big end first.
            if unzipped.read(4) != bytes([0, 0, _UNSIGNED_BYTES, dimensions]):
                raise InputError(
                    f"{path} is not an IDX file of unsigned bytes with {dimensions} dimensions"
                )
            header = unzipped.read(4 * dimensions)
            if len(header) < 4 * dimensions:
                raise InputError(f"{path} ends within its header")
            shape = tuple(np.frombuffer(header, ">u4").tolist())
            size, stated = math.prod(shape), f"its header says {'x'.join(map(str, shape))}"
            if size > _MOST_BYTES:
                raise InputError(f"{path} is not read, because {stated}, which is more than 1 GiB")
            content = unzipped.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if len(content) != size:
        found = f"only {len(content)}" if len(content) < size else "more"
        raise InputError(f"{path} should have {size} bytes ({stated}), and has {found}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _find(root: epath.Path, name: str) -> epath.Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.exists():
            return path
    raise InputError(
        f"there is no {name} or {name}.gz in {root}; MNIST's four files are at "
        "https://storage.googleapis.com/cvdf-datasets/mnist/"
    )
