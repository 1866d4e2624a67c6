"""The files that an evaluation writes."""

from collections.abc import Iterable

from etils import epath

from resnet_jax import parallel
from resnet_jax.errors import InputError
from resnet_jax.files import check_writable


def check_outputs(paths: Iterable[epath.PathLike]) -> None:
    """Refuses, before the work, files that could not be written after it; makes their folders.

    All processes have to call it, and none goes on where one of them would fail.

    Args:
      paths: Files that the primary process will write.

    Raises:
      InputError: One of them is a folder or cannot be written.
    """
    with parallel.together():
        for path in map(epath.Path, paths):
            if path.is_dir():
                raise InputError(f"{path} is a folder; give the name of a file")
            if parallel.is_primary():
                check_writable(path)
