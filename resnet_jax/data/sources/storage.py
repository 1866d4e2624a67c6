"""Reading of files and ranges of files, local or in an object store, and a cache beside them."""

import hashlib
import os
import resource
from collections.abc import Iterable
from functools import lru_cache

from etils import epath
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from resnet_jax.files import is_local, write_atomically


def most_open_files() -> int:
    """Returns how many files a source may keep open: a quarter of the process's limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(16, min(4096, soft // 4))


def object_store(path: epath.PathLike) -> AbstractFileSystem | None:
    """Returns the store that holds a path, None where only TensorFlow has access to it.

    `epath` alone sends a store more requests than are necessary, and fetches more of a file.
    """
    try:
        return url_to_fs(os.fspath(path))[0]
    except ImportError:
        return None


def read_file(path: epath.PathLike) -> bytes:
    """Returns the bytes of a file.

    Raises:
      OSError: The file cannot be read.
    """
    if is_local(path):
        with open(path, "rb") as file:
            return file.read()
    store = object_store(path)
    if store is None:
        return epath.Path(path).read_bytes()
    content = store.cat_file(os.fspath(path))  # one request; opening the file would be another
    assert isinstance(content, bytes)
    return content


class RangedReader:
    """Reads ranges of files, for several threads; the last local files stay open."""

    def __init__(self) -> None:
        """Opens nothing yet."""
        self._open = lru_cache(most_open_files())(_OpenFile)

    def read(self, path: epath.Path, start: int, stop: int) -> bytes:
        """Returns bytes `start` to `stop` of a file, fewer where it ends before.

        Raises:
          OSError: The file cannot be read.
        """
        if is_local(path):
            return self._open(os.fspath(path)).read(start, stop)
        store = object_store(path)
        if store is None:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(stop - start)
        content = store.cat_file(os.fspath(path), start=start, end=stop)
        assert isinstance(content, bytes)
        return content


class _OpenFile:
    """A file that is closed once no thread has a reference to it, even if one is reading now."""

    def __init__(self, name: str) -> None:
        self._descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, start: int, stop: int) -> bytes:
        return os.pread(self._descriptor, stop - start, start)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def cache_paths(folder: epath.Path, name: str) -> tuple[epath.Path, epath.Path]:
    """Returns where a file of this name may cache something about the data of a folder.

    The first choice is in the folder, hidden, so that it is not taken for data; the second is in
    the user's cache.
    """
    home = folder if not is_local(folder) else epath.Path(os.path.abspath(folder))
    beside = home / f".{name}"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    digest = hashlib.sha256(os.fsencode(os.fspath(beside))).hexdigest()[:32]
    suffix = os.path.splitext(name)[1]
    return beside, epath.Path(cache) / "resnet_jax" / "kept" / f"{digest}{suffix}"


def write_cache(content: bytes, paths: Iterable[epath.Path]) -> None:
    """Writes to the first path that can be written, or to none.

    Several processes may write the same file at once; a reader has to check that it is whole.
    """
    for path in paths:
        try:
            write_atomically(path, content)
        except Exception:  # object stores have errors of their own; without a cache it is slower
            continue
        return
