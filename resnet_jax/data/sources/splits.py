"""Splits and slices of them, as tensorflow_datasets writes them."""

import bisect
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from resnet_jax.data.sources.source import Example, Source
from resnet_jax.errors import InputError, unknown

Splits = Mapping[str, Callable[[], Source]]
"""The splits of a data set by name; a call opens one."""

_PART = re.compile(r"(?P<name>[\w-]+)(\[(?P<start>[^:\]]*):(?P<stop>[^:\]]*)\])?")
_EXAMPLES = re.compile(r"-?[\d_]+")
_PERCENT = re.compile(r"(-?[\d_.]+)%")

_SYNTAX = "write them as 'train', 'train[:1000]', 'train[-10%:]' or 'train[:90%]+test'"


class Part(NamedTuple):
    """Some consecutive examples of a split.

    Attributes:
      split: Its name.
      start: The first example.
      stop: The one after the last.
    """

    split: str
    start: int
    stop: int


def parse(spec: str, lengths: Mapping[str, Callable[[], int]], *, of: str) -> tuple[Part, ...]:
    """Returns the examples that a split and its slices stand for.

    The meaning is that of tensorflow_datasets: `split`, `split[from:to]` with either end left out,
    negative ends counted from the end of the split, ends in percent rounded to the nearest example
    (halves to even), parts joined by `+`, and `all` for all splits. Refused, unlike there, is what
    has no example or has one twice, what mixes percent and examples in a slice, and slices by
    shards, which only some sources have.

    Args:
      spec: The split, such as "train[:90%]".
      lengths: For each split what returns its number of examples; called where it is needed.
      of: What the data set is called in messages.

    Raises:
      InputError: It cannot be read, there is no such split, or it asks for what there is not.
    """
    texts = re.split(r"\s*\+\s*", spec)
    if "all" in texts and "all" not in lengths:
        texts = [name for text in texts for name in (list(lengths) if text == "all" else [text])]
    parts = tuple(_part(text, spec, lengths, of) for text in texts)
    for one, other in itertools.combinations(parts, 2):
        if one.split == other.split and max(one.start, other.start) < min(one.stop, other.stop):
            raise InputError(f"split {spec!r} has some examples of {one.split} twice")
    return parts


def select(spec: str, splits: Splits, *, of: str) -> Source:
    """Returns the examples of a split, or of slices of splits, as a source of their own.

    Args:
      spec: As `parse` reads it.
      splits: The splits that there are; only those that are asked for are opened.
      of: What the data set is called in messages.

    Raises:
      InputError: As `parse` and the splits themselves raise it.
    """
    opened: dict[str, Source] = {}

    def length(name: str) -> int:
        if name not in opened:
            opened[name] = splits[name]()
        return len(opened[name])

    parts = parse(spec, {name: lambda name=name: length(name) for name in splits}, of=of)
    first = opened[parts[0].split]
    if len(parts) == 1 and parts[0].stop - parts[0].start == len(first):
        return first
    return Selection([(opened[part.split], range(part.start, part.stop)) for part in parts])


class Selection:
    """Some examples of some sources, one after the other; itself a source.

    Attributes:
      class_names: The names of the classes.
    """

    def __init__(self, parts: Sequence[tuple[Source, range]]) -> None:
        """Joins the parts.

        Args:
          parts: Sources, and which of their examples.

        Raises:
          InputError: The sources have different classes.
        """
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


def _part(text: str, spec: str, lengths: Mapping[str, Callable[[], int]], of: str) -> Part:
    match = _PART.fullmatch(text)
    if match is None:
        raise InputError(f"split {spec!r} cannot be read; {_SYNTAX}")
    name = match["name"]
    if name not in lengths:
        if name == "all":
            raise InputError(f"split {spec!r} cannot be read; only single splits have slices")
        raise unknown(f"split of {of}", name, lengths)
    length = lengths[name]()
    start, stop = 0, length
    if match["start"] is not None:
        ends = (match["start"], match["stop"])
        given = [end for end in ends if end]
        if not given or len({end.endswith("%") for end in given}) > 1:
            raise InputError(f"split {spec!r} cannot be read; {_SYNTAX}")
        start = _end(ends[0], length, spec) if ends[0] else 0
        stop = _end(ends[1], length, spec) if ends[1] else length
        if max(abs(start), abs(stop)) > length:
            raise InputError(f"split {spec!r} asks for more than the {length} examples of {name}")
        start, stop = (end + length if end < 0 else end for end in (start, stop))
    if start >= stop:
        raise InputError(f"split {spec!r} is empty: {name} has {length} examples")
    return Part(name, start, stop)


def _end(text: str, length: int, spec: str) -> int:
    """Returns an end of a slice in examples, negative where it counts from the split's end."""
    percent = _PERCENT.fullmatch(text)
    try:
        if percent is not None:
            share = float(percent[1])
            if abs(share) > 100:
                raise InputError(f"split {spec!r} asks for more than 100%")
            # In this order, because the last bit of the product decides about halves.
            return round(share * length / 100)
        if _EXAMPLES.fullmatch(text):
            return int(text)
    except InputError:
        raise
    except ValueError:  # "1__0", "1.2.3"
        pass
    raise InputError(f"split {spec!r} cannot be read; {_SYNTAX}")
