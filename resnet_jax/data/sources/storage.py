"""Reading of files, local or in an object store, and a cache beside them."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from etils import epath
from fsspec.core import url_to_fs

from resnet_jax.files import is_local, write_atomically

_T = TypeVar("_T")


def read_file(path: epath.PathLike, start: int = 0, stop: int | None = None) -> bytes:
    """Returns the bytes of a file from `start` up to `stop`; fewer where it ends before.

    Raises:
      OSError: The file cannot be read.
    """
    if not is_local(path):
        with contextlib.suppress(ImportError):  # where TensorFlow alone has access to the store
            store, name = url_to_fs(os.fspath(path))
            content = store.cat_file(name, start, stop)  # one request; opening would be another
            assert isinstance(content, bytes)
            return content
    with open(path, "rb") if is_local(path) else epath.Path(path).open("rb") as file:
        file.seek(start)
        return file.read(-1 if stop is None else stop - start)


def cached(folder: epath.Path, name: str, state: Sequence[object], make: Callable[[], _T]) -> _T:
    """Returns the value of `make`, from a cache for as long as the state of the data is the same.

    State and value are of JSON's types. The cache is a file `.NAME.json` in the folder, or where
    none can be written, in the user's cache. Several processes may do this at once: a file that is
    not whole is replaced.
    """
    home = epath.Path(os.path.abspath(folder)) if is_local(folder) else folder
    beside = home / f".{name}.json"
    user = epath.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    digest = hashlib.sha256(os.fsencode(os.fspath(beside))).hexdigest()[:32]
    paths = beside, user / "resnet_jax" / "kept" / f"{digest}.json"
    for path in paths:
        with contextlib.suppress(Exception):  # missing or torn; object stores have their own errors
            checksum, content = path.read_bytes().split(b"\n", 1)
            if checksum == hashlib.sha256(content).hexdigest().encode():
                found, value = json.loads(content)
                if found == state:
                    return value
    value = make()
    content = json.dumps([state, value]).encode()
    for path in paths:
        with contextlib.suppress(Exception):  # without a cache it is slower
            write_atomically(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            break
    return value
