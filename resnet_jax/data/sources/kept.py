"""What was worked out of data once, and is kept: beside the data, or in the user's cache."""

import hashlib
import os
from collections.abc import Iterable

from etils import epath

from resnet_jax.files import is_local, write_atomically


def places(folder: epath.Path, name: str) -> tuple[epath.Path, epath.Path]:
    """Returns where something may be kept, the better place first.

    Args:
      folder: Where the data are.
      name: What it is called there; hidden, so that it is no part of the data.
    """
    home = folder if not is_local(folder) else epath.Path(os.path.abspath(folder))
    beside = home / f".{name}"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    digest = hashlib.sha256(os.fsencode(os.fspath(beside))).hexdigest()[:32]
    suffix = os.path.splitext(name)[1]
    return beside, epath.Path(cache) / "resnet_jax" / "kept" / f"{digest}{suffix}"


def keep(content: bytes, where: Iterable[epath.Path]) -> None:
    """Writes to the first place that can be written to, and to none where none can.

    Several processes may write the same at once. What reads it must be able to tell whether it is
    whole.
    """
    for path in where:
        try:
            write_atomically(path, content)
        except Exception:  # object stores have errors of their own; to keep nothing costs only time
            continue
        return
