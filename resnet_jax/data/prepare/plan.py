"""What a preparation makes: settings, the files, and which examples each has."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from PIL import Image, features

from resnet_jax.data.sources.source import Source
from resnet_jax.errors import InputError, unknown

Format = Literal["array_record", "tfrecord"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How images are stored.

    Attributes:
      shorter_side: The most pixels of the shorter of height and width; None to leave all images as
        they are.
      quality: Of the JPEGs that are made, 1 to 100.
      format: "array_record", or "tfrecord", which more programs read.
      examples_per_shard: How many examples a file has, about.
    """

    shorter_side: int | None = None
    quality: int = 90
    format: Format = "array_record"
    examples_per_shard: int = 2048

    def __post_init__(self) -> None:
        """Raises InputError where a value is out of range."""
        if self.shorter_side is not None and self.shorter_side < 1:
            raise InputError(f"the shorter side has at least 1 pixel, not {self.shorter_side}")
        if not 1 <= self.quality <= 100:
            raise InputError(f"the quality of a JPEG is 1 to 100, not {self.quality}")
        if self.format not in get_args(Format):
            raise unknown("format", self.format, get_args(Format))
        if self.examples_per_shard < 1:
            raise InputError(f"a file has at least 1 example, not {self.examples_per_shard}")


class Shard(NamedTuple):
    """A file of the prepared data set, and what becomes of which examples.

    Attributes:
      file: Its name.
      split: The split that it is a part of.
      start: The first example of the source.
      stop: The one after the last.
    """

    file: str
    split: str
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that decides about the bytes of a prepared data set, besides its images.

    Attributes:
      name: What the data set will be called.
      version: Its version, as "1.0.0".
      settings: How images are stored.
      class_names: The names of the classes.
      counts: How many examples each split of the source has.
      encoder: What encodes JPEGs; another one encodes the same image to other bytes.
    """

    name: str
    version: str
    settings: Settings
    class_names: tuple[str, ...]
    counts: Mapping[str, int]
    encoder: str

    def shards(self) -> tuple[Shard, ...]:
        """Returns the files, in the order in which they are written."""
        shards = []
        for split, count in self.counts.items():
            number = -(-count // self.settings.examples_per_shard)
            bounds = [count * shard // number for shard in range(number + 1)]
            for shard in range(number):
                file = f"{self.name}-{split}.{self.settings.format}-{shard:05}-of-{number:05}"
                shards.append(Shard(file, split, bounds[shard], bounds[shard + 1]))
        return tuple(shards)


def make_plan(sources: Mapping[str, Source], name: str, version: str, settings: Settings) -> Plan:
    """Returns the plan for some splits.

    Raises:
      InputError: A name is not one of a data set of tfds, or the splits cannot be one data set.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name a data set of tfds; it is as my_photos_2")
    if not _VERSION.fullmatch(version):
        raise InputError(f"{version!r} is no version of a data set; it is as 1.0.0")
    if not sources:
        raise InputError("there is no split to prepare")
    for split, source in sources.items():
        if not re.fullmatch(r"\w+", split):
            raise InputError(f"{split!r} cannot name a split of tfds, which has letters, digits, _")
        if len(source) == 0:
            raise InputError(f"split {split} has no examples")
    class_names = next(iter(sources.values())).class_names
    if any(source.class_names != class_names for source in sources.values()):
        raise InputError("splits with different classes cannot be one data set")
    for each in class_names:
        if not each or "\n" in each or not each.isprintable():
            raise InputError(f"{each!r} cannot name a class of a data set of tfds")
    return Plan(
        name=name,
        version=version,
        settings=settings,
        class_names=class_names,
        counts={split: len(source) for split, source in sources.items()},
        encoder=f"Pillow {Image.__version__}, libjpeg {features.version('jpg')}",
    )
