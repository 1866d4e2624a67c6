"""Files that stay whole when a process is killed, on a local disk or in an object store."""

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from typing import TypedDict

from etils import epath

from resnet_jax.errors import InputError

_CHUNK = 1 << 20  # bytes
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}  # of file systems without them


class Fingerprint(TypedDict):
    """The size and the hash of a file, as a manifest keeps them."""

    bytes: int
    sha256: str


def is_local(path: epath.PathLike) -> bool:
    """Whether a path is on a file system of this machine, not in an object store (`gs://...`)."""
    return "://" not in os.fspath(path)


def resolve_path(path: epath.PathLike) -> epath.Path:
    """Returns a path as typed by a user, with `~` for the home folder.

    Raises:
      InputError: It is in an unknown kind of store, such as `https://...`.
    """
    try:
        return epath.Path(path).expanduser()
    except KeyError as error:  # of etils
        raise InputError(
            f"{path} is in no store that can be read and written here; give a file or folder"
        ) from error


@contextlib.contextmanager
def named(path: epath.PathLike) -> Iterator[None]:
    """Gives a path to the errors of the operating system that have none, such as of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def write_atomically(path: epath.PathLike, content: bytes) -> None:
    """Writes a file durably; until it is whole, readers find the old one, or none.

    The folder is made where it is missing. A process killed before the end leaves `NAME.partial`,
    which the next write of the same file replaces. A file has one writer at a time.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(path):
        path.write_bytes(content)  # an object appears when it is whole
        return
    partial = path.with_name(path.name + ".partial")
    try:
        with named(path), open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    make_durable(path.parent)  # the rename itself


def make_durable(path: epath.PathLike) -> None:
    """Waits until a local file or folder is on the disk; in an object store it is already."""
    if not is_local(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def fingerprint(path: epath.Path) -> Fingerprint:
    """Returns the size and the SHA-256 of a file.

    Raises:
      OSError: It cannot be read.
    """
    size, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            digest.update(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def try_lock(descriptor: int) -> bool:
    """Locks an open file or folder for this process, and those it forks, until it is closed.

    The kernel releases the lock however the process ends. A file system without locks grants it.

    Returns:
      False if another process has it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def check_writable(path: epath.PathLike) -> None:
    """Refuses, before the work, a file that could not be written after it; makes its folder.

    Raises:
      InputError: The folder cannot be made or written to.
    """
    path = epath.Path(path)
    if not is_local(path):
        return
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}") from error


class GrowingFile:
    """A file that is appended to.

    Written bytes are in the file at once and outlive the process; after `sync` they outlive the
    machine. An object store cannot append: there the whole file is written at `sync`.
    """

    def __init__(self, path: epath.PathLike) -> None:
        """Opens the file at its end; makes it and its folder where they are missing."""
        self._path = epath.Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "ab") if is_local(self._path) else None  # noqa: SIM115
        self._content = b""  # of an object
        if self._file is None and self._path.exists():
            self._content = self._path.read_bytes()
        self._changed = False

    def write(self, content: bytes) -> None:
        """Appends to the file."""
        if self._file is not None:
            with named(self._path):
                self._file.write(content)
                self._file.flush()
        elif content:
            self._content += content
            self._changed = True

    def sync(self) -> None:
        """Makes the written bytes durable."""
        if self._file is not None:
            with named(self._path):
                self._file.flush()  # of bytes that the disk had no room for until now
                os.fsync(self._file.fileno())
        elif self._changed:
            write_atomically(self._path, self._content)
            self._changed = False

    def close(self) -> None:
        """Makes the written bytes durable and closes the file; a second call does nothing."""
        if self._file is None:
            self.sync()
        elif not self._file.closed:
            with named(self._path):
                try:
                    self.sync()
                finally:
                    self._file.close()
