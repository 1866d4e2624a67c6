"""MNIST, from its own files."""

import gzip
import zlib
from functools import partial
from typing import IO, cast

import numpy as np
from etils import epath
from jaxtyping import UInt8

from resnet_jax.data.sources.source import Example
from resnet_jax.data.sources.splits import Splits
from resnet_jax.errors import InputError, unknown

_PREFIXES = {"train": "train", "test": "t10k"}
_SIDE = 28
_BORDER = 2
_UNSIGNED_BYTES = 8
_MOST_BYTES = 2**30
_CHUNK = 2**20


class Mnist:
    """A split of MNIST: grey images of 32x32 pixels, a digit of 28x28 in the middle of each.

    The border of 2 black pixels is that of LeNet-5's images (LeCun et al. 1998, section III.A: no
    corner of a digit is lost at the edge). To have the 28x28 pixels of the files, take
    `data.image_size` 28 with `data.eval_resize` 32: a crop of the centre, which resamples nothing.

    Files of the same form and names, such as those of Fashion-MNIST, can be read too; their classes
    are called "0" to "9" all the same.

    Attributes:
      class_names: The ten digits.
    """

    class_names: tuple[str, ...] = tuple("0123456789")

    def __init__(self, root: epath.PathLike, split: str) -> None:
        """Reads a split.

        Args:
          root: The folder with the IDX files, gzipped or not: `train-images-idx3-ubyte[.gz]`,
            `train-labels-idx1-ubyte[.gz]`, `t10k-images-...` and `t10k-labels-...`.
          split: "train" or "test".

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
        self._split = split

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int, /) -> Example:
        position = range(len(self))[index]
        return Example(
            image=self._images[position],
            label=int(self._labels[position]),
            key=f"mnist/{self._split}/{position:05}",
        )


def mnist_splits(root: epath.PathLike) -> Splits:
    """Returns the splits, "train" and "test".

    Args:
      root: The folder with the four IDX files.
    """
    return {split: partial(Mnist, root, split) for split in _PREFIXES}


def read_idx(path: epath.PathLike, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """Returns the array of unsigned bytes of an IDX file.

    Its header alone never decides how much is allocated.

    Args:
      path: The file; gzipped where its name ends in `.gz`.
      dimensions: How many the array has to have.

    Raises:
      InputError: The file is of another kind, damaged, or larger than 1 GiB.
    """
    path = epath.Path(path)
    try:
        with path.open("rb") as file:
            if path.suffix != ".gz":
                return _read(file, path, dimensions)
            with gzip.open(file) as unzipped:
                return _read(cast(IO[bytes], unzipped), path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _read(file: IO[bytes], path: epath.Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    # Two zeros, the type, the number of dimensions; then each of them, four bytes, big end first.
    if file.read(4) != bytes([0, 0, _UNSIGNED_BYTES, dimensions]):
        raise InputError(
            f"{path} is not an IDX file of unsigned bytes with {dimensions} dimensions"
        )
    header = file.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise InputError(f"{path} ends within its header")
    shape = tuple(np.frombuffer(header, ">u4").tolist())
    size = int(np.prod(shape, dtype=object))
    said = f"its header says {'x'.join(map(str, shape))}"
    if size > _MOST_BYTES:
        raise InputError(f"{path} is not read, because {said}, which is more than 1 GiB")
    content = bytearray()
    while chunk := file.read(min(_CHUNK, size + 1 - len(content))):
        content += chunk
    if len(content) != size:
        found = f"only {len(content)}" if len(content) < size else "more"
        raise InputError(f"{path} should have {size} bytes ({said}), and has {found}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _find(root: epath.Path, name: str) -> epath.Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.exists():
            return path
    raise InputError(
        f"there is no {name} or {name}.gz in {root}; MNIST's four files are to be had from "
        "https://storage.googleapis.com/cvdf-datasets/mnist/"
    )
