"""Files and parts of them, local or in an object store, read by several threads."""

import os
import resource
from functools import lru_cache

from etils import epath
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from resnet_jax.files import is_local


def most_open_files() -> int:
    """Returns how many files a source may keep open: a quarter of what the process may."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(16, min(4096, soft // 4))


def object_store(path: epath.PathLike) -> AbstractFileSystem | None:
    """Returns the store in which a path is, None where only TensorFlow has access to it.

    `epath` asks a store more often than is necessary, and for more of a file than is wanted.
    """
    try:
        return url_to_fs(os.fspath(path))[0]
    except ImportError:
        return None


class RangedReader:
    """Reads files. The local ones of which parts were read last stay open."""

    def __init__(self, most_open: int | None = None) -> None:
        """Opens nothing yet.

        Args:
          most_open: How many local files stay open; by default as `most_open_files` says.
        """
        self._open = lru_cache(most_open or most_open_files())(_OpenFile)
        self._stores: dict[str, AbstractFileSystem | None] = {}

    def read(self, path: epath.Path, start: int, stop: int) -> bytes:
        """Returns bytes `start` to `stop` of a file, fewer where it ends before.

        Raises:
          OSError: The file cannot be read.
        """
        name = os.fspath(path)
        if is_local(path):
            return self._open(name).read(start, stop)
        store = self._store(name)
        if store is not None:  # one request for what is wanted and no more
            content = store.cat_file(name, start=start, end=stop)
            assert isinstance(content, bytes)
            return content
        with path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def read_whole(self, path: epath.PathLike) -> bytes:
        """Returns the bytes of a file, which does not stay open.

        Raises:
          OSError: The file cannot be read.
        """
        name = os.fspath(path)
        if is_local(path):
            with open(name, "rb") as file:
                return file.read()
        store = self._store(name)
        if store is not None:  # opening it would be a request of its own
            content = store.cat_file(name)
            assert isinstance(content, bytes)
            return content
        return epath.Path(name).read_bytes()

    def _store(self, name: str) -> AbstractFileSystem | None:
        scheme = name.split("://", 1)[0]
        if scheme not in self._stores:
            self._stores[scheme] = object_store(name)
        return self._stores[scheme]


class _OpenFile:
    """A file that is closed when the last thread has let go of it, even if that is reading."""

    def __init__(self, name: str) -> None:
        self._descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, start: int, stop: int) -> bytes:
        return os.pread(self._descriptor, stop - start, start)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
