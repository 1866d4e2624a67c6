"""Examples that cannot be read: a ledger of them, and others in their place."""

import json
import threading
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from etils import epath

from resnet_jax.data.random_bits import Stream, random_bits
from resnet_jax.errors import InputError
from resnet_jax.files import GrowingFile

Entry: TypeAlias = Mapping[str, "str | int | None"]
"""`split`, `index`, `key` (None where the source got no further) and `error` of an example."""

_ALWAYS_ALLOWED = 10
"""Failures that say nothing yet about a share."""

_SUBSTITUTES = 10
"""Examples that are tried in the place of one."""


class BadRecords:
    """What a training run does about examples that cannot be read.

    Each is entered once in a ledger, a file of JSON lines, and another example takes its place,
    with its own label: which one depends on the index alone, so that a batch is the same for any
    number of threads and processes, and in a run that goes on. When more than a share of the
    examples are found to be bad, reading ends with an error.

    Each process has its own ledger.

    Attributes:
      failures: How many times an example could not be read.
    """

    failures: int

    def __init__(
        self, split: str, most_share: float, *, ledger: epath.PathLike | None = None
    ) -> None:
        """Notes nothing yet.

        Args:
          split: What the examples are of, for the ledger.
          most_share: The share of the examples that may be bad, beyond ten; 0 is none at all.
          ledger: Where the ledger will be. Until `keep` says so, only a last word is written.

        Raises:
          InputError: The share is no share.
        """
        if not 0 <= most_share <= 1:
            raise InputError(f"the share of bad examples is from 0 to 1, and {most_share} is not")
        self.failures = 0
        self._split = split
        self._most_share = most_share
        self._bad: set[int] = set()
        self._ledger = ledger
        self._path: epath.Path | None = None
        self._file: GrowingFile | None = None
        self._waiting: list[Entry] = []
        self._entered: set[str] = set()
        self._lock = threading.Lock()

    def keep(self, path: epath.PathLike) -> None:
        """Says where the ledger is, and enters what was found so far; no entry makes no ledger."""
        self._path = epath.Path(path)
        self.sync()

    def enter(self, index: int, key: str | None, error: Exception, *, examples: int) -> None:
        """Enters an example.

        Args:
          index: Its index in the split.
          key: Its key, if the source got so far.
          error: Why it cannot be read.
          examples: How many there are.

        Raises:
          InputError: It is one too many.
        """
        entry: Entry = {"split": self._split, "index": index, "key": key, "error": str(error)}
        with self._lock:
            self.failures += 1
            self._bad.add(index)
            self._waiting.append(entry)
            self._write()
            allowed = self._most_share and _ALWAYS_ALLOWED + self._most_share * examples
            if len(self._bad) <= allowed:
                return
            if self._path is None and self._ledger is not None:
                self._path = epath.Path(self._ledger)
            self._close()
        where = "" if self._path is None else f"; {self._path} lists them"
        raise InputError(
            f"{len(self._bad)} of the {examples} examples of {self._split} cannot be read, which "
            f"is more than the share of {self._most_share:g}{where}; the last is number {index}: "
            f"{error}"
        ) from error

    def substitutes(self, index: int, examples: int) -> Iterator[int]:
        """Yields the examples that may take the place of one, the first choice first.

        Args:
          index: The example that cannot be read.
          examples: How many there are.
        """
        if examples > 1:
            for bits in random_bits(0, Stream.SUBSTITUTE, index, _SUBSTITUTES).tolist():
                yield (index + 1 + bits % (examples - 1)) % examples

    def sync(self) -> None:
        """Makes what was entered durable."""
        with self._lock:
            self._sync()

    def close(self) -> None:
        """Makes what was entered durable, and closes the ledger."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self._sync()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _sync(self) -> None:
        self._write()
        if self._file is not None:
            self._file.sync()

    def _write(self) -> None:
        """Writes what is not in the ledger yet."""
        if self._path is None or not self._waiting:
            return
        if self._file is None:
            before = self._path.read_bytes() if self._path.exists() else b""
            self._entered = {_identity(entry) for entry in _entries(before)}
            self._file = GrowingFile(self._path)
            if before and not before.endswith(b"\n"):  # killed in the middle of a line
                self._file.write(b"\n")
        for entry in self._waiting:
            if _identity(entry) not in self._entered:
                self._entered.add(_identity(entry))
                self._file.write(json.dumps(entry).encode() + b"\n")
        self._waiting.clear()


def read_ledger(path: epath.PathLike) -> list[Entry]:
    """Returns the entries of a ledger, if there is one; what a kill has torn is left out."""
    path = epath.Path(path)
    return list(_entries(path.read_bytes())) if path.exists() else []


def _entries(content: bytes) -> Iterator[Entry]:
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def _identity(entry: Entry) -> str:
    return json.dumps([entry.get("split"), entry.get("index"), entry.get("key")])
