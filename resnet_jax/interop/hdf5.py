"""HDF5 files, read as no more than arrays in groups.

HDF5 can do much else, and a file of strangers decides what: links to other files, arrays that are
put together from other files, filters that unpack little into much, groups that contain themselves.
Keras writes none of it, and all of it is refused before anything is read.
"""

import io
from collections.abc import Collection, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from resnet_jax.errors import InputError

MAGIC = b"\x89HDF\r\n\x1a\n"

_MOST_OBJECTS = 10**5
_DEEPEST = 16
_LONGEST_TEXT = 2**24


class Contents(NamedTuple):
    """What a file holds.

    Attributes:
      arrays: By their path.
      texts: Attributes that are text, by the path of their group ("" is the file) and their name.
    """

    arrays: dict[str, np.ndarray]
    texts: dict[tuple[str, str], str]


def h5py() -> ModuleType:
    """Returns the package that reads HDF5.

    Raises:
      InputError: It is not installed.
    """
    try:
        import h5py  # an extra: it is needed for files of Keras alone
    except ImportError as error:
        raise InputError(
            "for files of Keras h5py has to be installed: pip install 'resnet_jax[keras]'"
        ) from error
    return h5py


def read_hdf5(content: bytes, texts: Collection[str]) -> Contents:
    """Returns the arrays and texts of a file.

    HDF5's own library believes what a text of variable length says of itself, up to 4 GiB, until it
    looks; no other claim of a file makes it allocate more than the file has.

    Args:
      content: The file.
      texts: Names of the attributes that are looked for.

    Raises:
      InputError: It is damaged, or makes use of what arrays do not need; the package `h5py` is not
        installed.
    """
    library = h5py()
    try:
        with library.File(io.BytesIO(content), "r") as file:
            return _Reader(library, len(content), texts).contents(file)
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise anything
        reason = str(error).strip().splitlines() or [repr(error)]
        raise InputError(f"its HDF5 is damaged ({reason[0]})") from error


class _Reader:
    """Walks through one file."""

    def __init__(self, library: ModuleType, size: int, texts: Collection[str]) -> None:
        self._h5 = library
        self._wanted = texts
        self._spare = size  # bytes that arrays may still have
        self._objects = 0

    def contents(self, file: Any) -> Contents:
        contents = Contents({}, {})
        for path, thing in self._walk(file, "", 0):
            if isinstance(thing, self._h5.Dataset):
                contents.arrays[path] = self._array(path, thing)
            else:
                contents.texts.update(self._texts(path, thing))
        return contents

    def _walk(self, group: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
        yield path, group
        for name in group:
            where = f"{path}/{name}".removeprefix("/")
            self._objects += 1
            if self._objects > _MOST_OBJECTS or depth > _DEEPEST:
                raise InputError("its groups contain more than those of any network")
            if not isinstance(group.get(name, getlink=True), self._h5.HardLink):
                raise InputError(f"{where} is a link to another place; nothing of it was read")
            thing = group[name]
            if isinstance(thing, self._h5.Group):
                yield from self._walk(thing, where, depth + 1)
            elif isinstance(thing, self._h5.Dataset):
                yield where, thing
            else:
                raise InputError(f"{where} is no array")

    def _array(self, path: str, dataset: Any) -> np.ndarray:
        if dataset.is_virtual or dataset.external:
            raise InputError(f"{path} is in another file; nothing of it was read")
        if dataset.dtype.kind not in "fiub" or not dataset.size:
            raise InputError(f"{path} is of type {dataset.dtype} and no array of numbers")
        # Filters would have fewer bytes than numbers; so has an array of which nothing is written.
        if dataset.chunks is not None or dataset.id.get_storage_size() != dataset.nbytes:
            raise InputError(
                f"{path} has {dataset.id.get_storage_size()} bytes for the shape {dataset.shape}, "
                "or is in pieces, which Keras writes none of"
            )
        self._spare -= dataset.nbytes  # two names of one array could make much of little
        if self._spare < 0:
            raise InputError(f"its arrays up to {path} are larger than the file")
        array = np.asarray(dataset[()])
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _texts(self, path: str, group: Any) -> dict[tuple[str, str], str]:
        found = {}
        for name in filter(group.attrs.__contains__, self._wanted):
            attribute = group.attrs.get_id(name)
            if attribute.dtype.itemsize > _LONGEST_TEXT:
                raise InputError(f"its {name} is longer than any network's")
            if attribute.shape == () and self._h5.check_string_dtype(attribute.dtype) is not None:
                text = group.attrs[name]
                text = text.decode() if isinstance(text, bytes) else str(text)
                if len(text) > _LONGEST_TEXT:
                    raise InputError(f"its {name} is longer than any network's")
                found[path, name] = text
        return found
