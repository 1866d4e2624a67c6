"""Sources to prepare, and the files of prepared data sets."""

import pathlib

import pytest

from resnet_jax.data import folder_splits
from resnet_jax.data.manifest import Settings
from resnet_jax.data.prepare import prepare
from resnet_jax.data.sources import Example
from tests.data.pictures import encode, photo, write_folder

CLASSES = {"ant": 7, "Bee": 5, "cat": 3}
SETTINGS = Settings(examples_per_shard=4)


class Pictures:
    """A source in memory."""

    class_names = ("a", "b")

    def __init__(self, count=10, bad=(), seed=0, size=24):
        self._images = [encode(photo(size, 20, seed=seed + n), "JPEG") for n in range(count)]
        for index in bad:
            self._images[index] = self._images[index][:-200]

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index, /):
        return Example(self._images[index], index % 2, f"picture {index}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("source") / "root"
    write_folder(root, {"train": CLASSES, "val": dict.fromkeys(CLASSES, 2)})
    return root


def opened(root):
    return {split: open_split() for split, open_split in folder_splits(root).items()}


def contents(place):
    """The bytes of every file of a data set, but for what is remembered of reading it."""
    files = (path for path in pathlib.Path(place).rglob("*") if path.is_file())
    return {p.name: p.read_bytes() for p in files if not p.name.startswith(".index")}


def interrupted(sources, out, after, **options):
    """Prepares until some examples have been asked for, and is interrupted."""

    class Stop(KeyboardInterrupt):
        pass

    class Interrupting:
        def __init__(self, source):
            self._source = source
            self.class_names = source.class_names

        def __len__(self):
            return len(self._source)

        def __getitem__(self, index, /):
            if index >= after:
                raise Stop
            return self._source[index]

    with pytest.raises(Stop):
        prepare({n: Interrupting(s) for n, s in sources.items()}, out, "photos", **options)
