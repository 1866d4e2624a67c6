"""Splits and slices of them, as tensorflow_datasets writes them."""

import bisect
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from resnet_jax.data.sources import Example, Source
from resnet_jax.errors import InputError, unknown

Splits = Mapping[str, Callable[[], Source]]
"""The splits of a data set by name; a call opens one."""

_PART = re.compile(r"(?P<name>[\w-]+)(\[(?P<start>[^:\]]*):(?P<stop>[^:\]]*)\])?")
_END = re.compile(r"(-?[\d_]+)|(-?[\d_.]+)%")

_SYNTAX = "write them as 'train', 'train[:1000]', 'train[-10%:]' or 'train[:90%]+test'"


class Part(NamedTuple):
    """Consecutive examples of a split, from `start` up to, not including, `stop`."""

    split: str
    start: int
    stop: int


def select(spec: str, splits: Splits, *, of: str) -> Source:
    """Returns the examples of a split, or of slices of splits, as a source.

    The meaning is that of tensorflow_datasets: `split`, `split[from:to]` with either end left out,
    negative ends counted from the end of the split, ends in percent rounded to the nearest example
    (halves to even), parts joined by `+`, and `all` for all splits. Refused, unlike there, are
    empty parts, an example twice, percent and examples in one slice, and slices by shards, which
    only some sources have.

    Args:
      spec: The split, such as "train[:90%]"; only those named are opened.
      splits: The splits of the data set.
      of: Name of the data set, for messages.

    Raises:
      InputError: It cannot be read, there is no such split, or a slice is out of range.
    """
    opened = functools.cache(lambda name: splits[name]())
    parts = parse(spec, tuple(splits), lambda name: len(opened(name)), of=of)
    first = opened(parts[0].split)
    if len(parts) == 1 and parts[0].stop - parts[0].start == len(first):
        return first
    return Selection([(opened(part.split), range(part.start, part.stop)) for part in parts])


def parse(
    spec: str, names: Sequence[str], length: Callable[[str], int], *, of: str
) -> tuple[Part, ...]:
    """Returns the parts that `select` takes; `length` is called only for splits in `spec`."""
    texts = re.split(r"\s*\+\s*", spec)
    if "all" in texts and "all" not in names:
        texts = [name for text in texts for name in (names if text == "all" else [text])]
    parts = tuple(_part(text, spec, names, length, of) for text in texts)
    for one, other in itertools.combinations(parts, 2):
        if one.split == other.split and max(one.start, other.start) < min(one.stop, other.stop):
            raise InputError(f"split {spec!r} has some examples of {one.split} twice")
    return parts


class Selection:
    """Some examples of some sources, one after the other; itself a source."""

    def __init__(self, parts: Sequence[tuple[Source, range]]) -> None:
        """Joins sources of the same classes, of each the examples of these indices."""
        self.class_names = parts[0][0].class_names
        if any(source.class_names != self.class_names for source, _ in parts):
            raise InputError("splits with different classes cannot be joined")
        self._parts = parts
        self._starts = [0, *itertools.accumulate(len(rows) for _, rows in parts)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int, /) -> Example:
        position = range(len(self))[index]
        part = bisect.bisect_right(self._starts, position) - 1
        source, rows = self._parts[part]
        return source[rows[position - self._starts[part]]]


def _part(
    text: str, spec: str, names: Sequence[str], length: Callable[[str], int], of: str
) -> Part:
    match = _PART.fullmatch(text)
    if match is None:
        raise InputError(f"split {spec!r} cannot be read; {_SYNTAX}")
    name = match["name"]
    if name not in names:
        if name == "all":
            raise InputError(f"split {spec!r} cannot be read; only single splits have slices")
        raise unknown(f"split of {of}", name, names)
    start, stop = 0, length(name)
    if match["start"] is not None:
        ends = match["start"], match["stop"]
        if len({end.endswith("%") for end in ends if end}) != 1:  # mixed, or "[:]"
            raise InputError(f"split {spec!r} cannot be read; {_SYNTAX}")
        start, stop = (
            _end(end, spec, name, length(name)) if end else default
            for end, default in zip(ends, (0, stop), strict=True)
        )
    if start >= stop:
        raise InputError(f"split {spec!r} is empty: {name} has {length(name)} examples")
    return Part(name, start, stop)


def _end(text: str, spec: str, name: str, length: int) -> int:
    """Returns an end of a slice, in examples."""
    match = _END.fullmatch(text)
    examples, percent = match.groups() if match else (None, None)
    try:
        share = float(percent or 0)
        # The product first: its last bit decides about halves, as in tfds.
        end = int(examples or "") if percent is None else round(share * length / 100)
    except ValueError as error:  # "1__0", "1.2.3"
        raise InputError(f"split {spec!r} cannot be read; {_SYNTAX}") from error
    if abs(share) > 100:
        raise InputError(f"split {spec!r} asks for more than 100%")
    if abs(end) > length:
        raise InputError(f"split {spec!r} asks for more than the {length} examples of {name}")
    return end + length if end < 0 else end
