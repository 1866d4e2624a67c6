"""Examples that cannot be read: their ledger, and their substitutes."""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from etils import epath

from resnet_jax.data.draws import Stream, random_bits
from resnet_jax.errors import InputError
from resnet_jax.files import write_atomically

Entry: TypeAlias = Mapping[str, "str | int | None"]
"""`split`, `index`, `key` (None where the source could not tell) and `error` of an example."""

_ALWAYS_ALLOWED = 10
"""Failures that are too few to be a share."""

_SUBSTITUTES = 10
"""Substitutes of an example that are tried."""


class BadRecords:
    """Lets training go on without the examples that cannot be read.

    Another example takes the place of each, with its own label: which one depends on the index
    alone, so that batches stay the same for any number of threads and processes. Each process has a
    ledger, a file of JSON lines, with each bad example once. When more than a share of the examples
    are bad, reading ends with an error.

    Attributes:
      failures: How many times an example could not be read.
    """

    failures: int

    def __init__(
        self, split: str, most_share: float, *, ledger: epath.PathLike | None = None
    ) -> None:
        """Starts without bad examples.

        Args:
          split: The split of the examples, for the ledger.
          most_share: The share of the examples, 0 to 1, that may be bad beyond ten; 0 is none.
          ledger: The ledger's path, written by `sync` and before the error of too many.
        """
        if not 0 <= most_share <= 1:
            raise InputError(f"the share of bad examples is from 0 to 1, and {most_share} is not")
        self.failures = 0
        self._split = split
        self._most_share = most_share
        self._ledger = None if ledger is None else epath.Path(ledger)
        self._bad: dict[int, Entry] = {}
        self._synced = 0
        self._lock = threading.Lock()

    def enter(self, index: int, key: str | None, error: Exception, *, examples: int) -> None:
        """Counts an example, of a split of `examples`, as bad.

        Raises:
          InputError: It is one too many.
        """
        entry: Entry = {"split": self._split, "index": index, "key": key, "error": str(error)}
        with self._lock:
            self.failures += 1
            self._bad.setdefault(index, entry)
            allowed = self._most_share and _ALWAYS_ALLOWED + self._most_share * examples
            if len(self._bad) <= allowed:
                return
        self.sync()
        where = "" if self._ledger is None else f"; {self._ledger} lists them"
        raise InputError(
            f"{len(self._bad)} of the {examples} examples of {self._split} cannot be read, which "
            f"is more than the share of {self._most_share:g}{where}; the last is number {index}: "
            f"{error}"
        ) from error

    def substitutes(self, index: int, examples: int) -> Iterator[int]:
        """Yields the substitutes of an example of a split of `examples`, the first choice first."""
        if examples > 1:
            for bits in random_bits(0, Stream.SUBSTITUTE, index, _SUBSTITUTES).tolist():
                yield (index + 1 + bits % (examples - 1)) % examples

    def sync(self) -> None:
        """Writes the new entries to the ledger, durably; the first entry makes the ledger.

        Entries since the last call are lost in a kill; a run that is started again repeats its
        steps since the last checkpoint, and finds them again.
        """
        with self._lock:
            if self._ledger is None or self._synced == len(self._bad):
                return
            entries = [*read_ledger(self._ledger), *self._bad.values()]
            names = [
                (entry.get("split"), entry.get("index"), entry.get("key")) for entry in entries
            ]
            every = dict(zip(names, entries, strict=True)).values()
            write_atomically(self._ledger, "".join(f"{json.dumps(e)}\n" for e in every).encode())
            self._synced = len(self._bad)


def read_ledger(path: epath.PathLike) -> list[Entry]:
    """Returns the entries of a ledger, none where it is missing; torn lines are left out."""
    path = epath.Path(path)
    entries = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    return entries
