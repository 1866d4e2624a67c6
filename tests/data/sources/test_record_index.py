import multiprocessing
import os

import pytest
from etils import epath

from resnet_jax import InputError
from resnet_jax.data.sources import kept
from resnet_jax.data.sources.ranged import RangedReader
from resnet_jax.data.sources.record_index import index_records
from tests.data.sources.tfrecord_reference import record_bytes, write_tfrecord


class Counted(RangedReader):
    """Counts what is read."""

    def __init__(self):
        super().__init__()
        self.reads = 0

    def read(self, path, start, stop):
        self.reads += 1
        return super().read(path, start, stop)


def write(folder, lengths=((3, 4), (5,), ())):
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"set-train.tfrecord-{n:05}-of-00003" for n in range(len(lengths))]
    for file, each in zip(files, lengths, strict=True):
        write_tfrecord(file, [b"x" * length for length in each])
    return files


def look(files, name="train"):
    """Returns the starts as lists, and how often the files were read for it."""
    reader = Counted()
    return [starts.tolist() for starts in index_records(files, name, reader)], reader.reads


EXPECTED = [[0, 19, 39], [0, 21], [0]]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "resnet_jax" / "kept"


def test_records_are_found_once(tmp_path):
    files = write(tmp_path / "data")
    assert look(files) == (EXPECTED, 2)
    assert (tmp_path / "data" / ".index-train.bin").exists()
    assert look(files) == (EXPECTED, 0)
    assert look(files[:1], "test") == (EXPECTED[:1], 1)


@pytest.mark.parametrize("change", ["size", "time", "name"])
def test_records_are_found_anew_after_a_change(tmp_path, change):
    files = write(tmp_path / "data")
    look(files)
    if change == "size":
        write_tfrecord(files[1], [b"abcdef"])
    elif change == "time":
        write_tfrecord(files[1], [b"abcde"])
        os.utime(files[1], ns=(0, 0))
    else:
        renamed = files[1].with_name("set-train.tfrecord-00009-of-00010")
        os.rename(files[1], renamed)
        files[1] = renamed
    starts, reads = look(files)
    assert reads > 0
    assert starts[1] == [0, 22 if change == "size" else 21]
    assert look(files) == (starts, 0)


def test_a_torn_or_changed_index_is_not_trusted(tmp_path):
    files = write(tmp_path / "data")
    look(files)
    path = tmp_path / "data" / ".index-train.bin"
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[position] ^= 4
        for content in (bytes(changed), whole[:position]):
            path.write_bytes(content)
            assert look(files) == (EXPECTED, 2)
            assert path.read_bytes() == whole


def test_an_index_that_cannot_be_beside_the_files_is_in_the_users_cache(
    tmp_path, cache, monkeypatch
):
    files = write(tmp_path / "data")
    write_atomically = kept.write_atomically

    def read_only(path, content):
        if path.is_relative_to(tmp_path / "data"):
            raise PermissionError(path)
        write_atomically(path, content)

    monkeypatch.setattr(kept, "write_atomically", read_only)
    assert look(files) == (EXPECTED, 2)
    assert len(list(cache.iterdir())) == 1
    assert look(files) == (EXPECTED, 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "data" / "cache"))
    assert look(files) == (EXPECTED, 2), "an index that is kept nowhere is only slower"


def test_an_object_store(object_store):
    files = write(object_store)
    assert look(files) == (EXPECTED, 2)
    assert (object_store / ".index-train.bin").exists()
    assert look(files) == (EXPECTED, 0)
    files[1].write_bytes(record_bytes(b"longer"))
    assert look(files) == ([[0, 19, 39], [0, 22], [0]], 2)


def test_a_store_that_cannot_be_written_to(object_store, cache, monkeypatch):
    files = write(object_store)
    write_atomically = kept.write_atomically

    class StoreError(Exception):
        """Stores have errors of their own."""

    def read_only(path, content):
        if path.is_relative_to(object_store):
            raise StoreError
        write_atomically(path, content)

    monkeypatch.setattr(kept, "write_atomically", read_only)
    assert look(files) == (EXPECTED, 2)
    assert look(files) == (EXPECTED, 0)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"garbage" * 9, "{} is no TFRecord, or a compressed one; copy or prepare it again"),
        (
            record_bytes(b"abc")[:-1],
            "{} ends within a record, that of byte 0; copy or prepare it again",
        ),
        (None, "{} cannot be read: "),
    ],
)
def test_damage_is_refused(tmp_path, content, message):
    files = write(tmp_path / "data")
    if content is None:
        files[1].unlink()
    else:
        files[1].write_bytes(content)
    with pytest.raises(InputError) as error:
        look(files)
    assert str(error.value).startswith(message.format(files[1]))
    assert not (tmp_path / "data" / ".index-train.bin").exists()


def _look(folder, start, results):
    start.wait()
    names = sorted(path for path in epath.Path(folder).iterdir() if "tfrecord" in path.name)
    for _ in range(20):
        (epath.Path(folder) / ".index-train.bin").unlink(missing_ok=True)
        results.put(look(names)[0])


def test_processes_that_start_together_agree(tmp_path):
    write(tmp_path / "data")
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    arguments = (str(tmp_path / "data"), start, results)
    processes = [context.Process(target=_look, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    found = [results.get(timeout=60) for _ in range(80)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert found == [EXPECTED] * 80
