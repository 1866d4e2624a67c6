"""Images that cannot be prepared, and how many of them there may be."""

import dataclasses
import json
from collections.abc import Iterable

from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.files import write_atomically

BAD_FILE = "bad.jsonl"


@dataclasses.dataclass(frozen=True)
class Bad:
    """An image that was left out.

    Attributes:
      split: The split that it would have been in.
      key: What the source calls it.
      error: What is wrong with it.
    """

    split: str
    key: str
    error: str


class BadLimit:
    """Counts images that are left out."""

    def __init__(self, folder: epath.Path, share: float, total: int) -> None:
        """Begins to count.

        Args:
          folder: Where the list of them goes.
          share: Which share of all images they may be.
          total: The number of all images.
        """
        self._folder = folder
        self._share = share
        self._total = total
        self._all: list[Bad] = []

    def add(self, bad: Bad) -> None:
        """Counts one more.

        Raises:
          InputError: These are too many.
        """
        self._all.append(bad)
        if len(self._all) <= self._share * self._total:
            return
        if not self._share:
            raise InputError(
                f"image {bad.key} of {bad.split} cannot be prepared: {bad.error}; "
                "--skip_bad=0.001 leaves out up to one in a thousand, and lists them"
            )
        write_bad(self._folder, self._all)
        raise InputError(
            f"{len(self._all)} of {self._total} images cannot be prepared, which is more than the "
            f"share of {self._share} that may be left out; {self._folder / BAD_FILE} lists them"
        )


def write_bad(folder: epath.Path, bad: Iterable[Bad]) -> None:
    """Writes the list of what was left out, one JSON object a line; where it is empty, no file."""
    lines = [json.dumps(dataclasses.asdict(each)) + "\n" for each in bad]
    if lines:
        write_atomically(folder / BAD_FILE, "".join(lines).encode())
    else:
        (folder / BAD_FILE).unlink(missing_ok=True)
