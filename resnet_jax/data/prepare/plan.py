"""The plan of a prepared data set: its settings, its files, and which examples each file has."""

import dataclasses
import json
import re
import reprlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from etils import epath
from flax.traverse_util import flatten_dict
from PIL import Image, features

from resnet_jax.data.sources import Source
from resnet_jax.errors import InputError

FORMAT = "array_record"
"""The format that is written; TFRecord is only read."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How images are stored.

    Attributes:
      shorter_side: The most pixels of the shorter of height and width; None for any number.
      quality: Quality of the JPEGs that are encoded, 1 to 100.
      examples_per_shard: About how many examples a file has.
      format: Of the files.

    Raises:
      InputError: A value is out of range.
    """

    shorter_side: int | None = None
    quality: int = 90
    examples_per_shard: int = 2048
    format: str = dataclasses.field(default=FORMAT, init=False)

    def __post_init__(self) -> None:
        if self.shorter_side is not None and self.shorter_side < 1:
            raise InputError(f"the shorter side has at least 1 pixel, not {self.shorter_side}")
        if not 1 <= self.quality <= 100:
            raise InputError(f"the quality of a JPEG is 1 to 100, not {self.quality}")
        if self.examples_per_shard < 1:
            raise InputError(f"a file has at least 1 example, not {self.examples_per_shard}")


class Shard(NamedTuple):
    """A file of the data set, and the indices of its examples in a split of the source."""

    file: str
    split: str
    indices: range


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that decides about the bytes of a prepared data set, besides its images.

    Attributes:
      counts: Number of examples of each split of the source.
      encoder: The JPEG encoder; another one encodes the same image to other bytes.
    """

    name: str
    version: str
    settings: Settings
    class_names: tuple[str, ...]
    counts: Mapping[str, int]
    encoder: str

    def shards(self) -> Iterator[Shard]:
        """Yields the files in the order in which they are written."""
        for split, count in self.counts.items():
            number = -(-count // self.settings.examples_per_shard)
            for shard in range(number):
                file = f"{self.name}-{split}.{FORMAT}-{shard:05}-of-{number:05}"
                start, stop = count * shard // number, count * (shard + 1) // number
                yield Shard(file, split, range(start, stop))

    def refuse_other(self, folder: epath.Path, how: str, other: Mapping[str, object]) -> None:
        """Refuses a folder that was "begun" or "prepared" (`how`) by another plan, read from JSON.

        Raises:
          InputError: Names the first value that differs.
        """
        before, now = (flatten_dict(tree, sep=".") for tree in (other, json.loads(self.to_json())))
        for key in [*now, *before]:
            one, another = before.get(key), now.get(key)
            if one != another:
                raise InputError(
                    f"{folder} was {how} with {key} {reprlib.repr(one)} and not "
                    f"{reprlib.repr(another)}; take another place or version, or delete it"
                )

    def to_json(self) -> str:
        """Returns the plan as JSON."""
        return json.dumps(dataclasses.asdict(self))


def make_plan(sources: Mapping[str, Source], name: str, version: str, settings: Settings) -> Plan:
    """Returns the plan for some splits.

    Raises:
      InputError: A name does not suit tensorflow_datasets, or the splits cannot be one data set.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(f"{name!r} cannot name a data set of tfds; write it as my_photos_2")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise InputError(f"{version!r} is not a version of a data set; write it as 1.0.0")
    if not sources:
        raise InputError("there is no split to prepare")
    for split, source in sources.items():
        if not re.fullmatch(r"\w+", split):
            raise InputError(f"{split!r} cannot name a split of tfds, which has letters, digits, _")
        if len(source) == 0:
            raise InputError(f"split {split} has no examples")
    class_names, *others = (source.class_names for source in sources.values())
    if any(other != class_names for other in others):
        raise InputError("splits with different classes cannot be one data set")
    for each in class_names:
        if not each or not each.isprintable():
            raise InputError(f"{each!r} cannot name a class of a data set of tfds")
    return Plan(
        name=name,
        version=version,
        settings=settings,
        class_names=class_names,
        counts={split: len(source) for split, source in sources.items()},
        encoder=f"Pillow {Image.__version__}, libjpeg {features.version('jpg')}",
    )
