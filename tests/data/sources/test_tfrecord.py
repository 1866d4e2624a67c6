import io
import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax import InputError
from resnet_jax.data.sources import records as records_module
from resnet_jax.data.sources import storage
from resnet_jax.data.sources.records import find_records, index_records, unframe
from tests.data.sources.tfrecord_reference import record_bytes, write_tfrecord

RECORDS = [b"", b"a", b"\x00" * 40, bytes(range(256)) * 3]


def find(content):
    return find_records(io.BytesIO(content))


def test_a_published_record():
    # What tf.io.TFRecordWriter writes for b"hello".
    content = bytes.fromhex("0500000000000000eab2043e68656c6c6fbb1f1c19")
    assert record_bytes(b"hello") == content
    assert unframe(content, 0) == b"hello"


@pytest.mark.parametrize("data", RECORDS)
def test_a_record_is_as_defined(data):
    assert unframe(record_bytes(data), 0) == data


@given(st.lists(st.integers(0, 200).map(lambda length: b"x" * length), max_size=12))
def test_records_are_found(records):
    content = b"".join(map(record_bytes, records))
    starts = find(content)
    assert starts == [0, *itertools.accumulate(len(record) + 16 for record in records)]
    for record, (start, stop) in zip(records, itertools.pairwise(starts), strict=True):
        assert unframe(content[start:stop], start) == record


def test_data_are_not_read(tmp_path):
    write_tfrecord(tmp_path / "file", [b"x" * 100_000] * 5)
    with open(tmp_path / "file", "rb", buffering=0) as raw:
        read = []
        readinto = raw.readinto

        class Noted(io.RawIOBase):
            readable = seekable = lambda self: True
            seek = raw.seek

            def readinto(self, buffer):
                read.append(len(buffer))
                return readinto(buffer)

        assert len(find_records(io.BufferedReader(Noted(), 1 << 12))) == 6
    assert sum(read) <= 5 << 12


def test_a_file_whose_seek_returns_nothing(tmp_path):
    class OfTensorFlow(io.BytesIO):
        def seek(self, *arguments):
            super().seek(*arguments)

    write_tfrecord(tmp_path / "file", [b"x" * 10] * 2)
    assert find_records(OfTensorFlow((tmp_path / "file").read_bytes())) == [0, 26, 52]


def test_no_records():
    assert find(b"") == [0]


def test_every_truncation_is_found():
    content = b"".join(map(record_bytes, RECORDS))
    whole = set(find(content))
    for length in range(len(content)):
        if length in whole:
            continue  # a file that lacks whole records is found by their number
        with pytest.raises(InputError, match="ends within a record"):
            find(content[:length])


def test_every_flipped_byte_is_found():
    content = record_bytes(b"some data")
    for position, bit in itertools.product(range(len(content)), (0, 7)):
        changed = bytearray(content)
        changed[position] ^= 1 << bit
        with pytest.raises(InputError):
            unframe(bytes(changed), 0)
        if position < 12:
            with pytest.raises(InputError):
                find(bytes(changed))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b" + b"gzip" * 20, "is not a TFRecord file, or it is compressed"),
        (
            record_bytes(b"abc") + b"garbage" * 9,
            "has at byte 19 a length that is not what was written",
        ),
        (record_bytes(b"abc") + record_bytes(b"abcdef")[:-5], "ends within a record, that of byte"),
        (record_bytes(b"abc") + b"\x00", "ends within a record, that of byte 19"),
    ],
)
def test_what_is_wrong_is_said(content, message):
    with pytest.raises(InputError) as error:
        find(content)
    assert str(error.value).startswith(message)


def write(folder, lengths=((3, 4), (5,), ())):
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"set-train.tfrecord-{n:05}-of-00003" for n in range(len(lengths))]
    for file, each in zip(files, lengths, strict=True):
        write_tfrecord(file, [b"x" * length for length in each])
    return files


def indexed(files, name="train"):
    """Returns where records begin, and how many files were read for it."""
    read = []

    def counted(file):
        read.append(file)
        return find_records(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "find_records", counted)
        return index_records(files, name), len(read)


EXPECTED = [[0, 19, 39], [0, 21], [0]]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "resnet_jax" / "kept"


def test_records_are_found_once(tmp_path):
    files = write(tmp_path / "data")
    assert indexed(files) == (EXPECTED, 3)
    assert (tmp_path / "data" / ".index-train.json").exists()
    assert indexed(files) == (EXPECTED, 0)
    assert indexed(files[:1], "test") == (EXPECTED[:1], 1)


@pytest.mark.parametrize("change", ["size", "time", "name"])
def test_records_are_found_anew_after_a_change(tmp_path, change):
    files = write(tmp_path / "data")
    indexed(files)
    if change == "size":
        write_tfrecord(files[1], [b"abcdef"])
    elif change == "time":
        write_tfrecord(files[1], [b"abcde"])
        os.utime(files[1], ns=(0, 0))
    else:
        renamed = files[1].with_name("set-train.tfrecord-00009-of-00010")
        os.rename(files[1], renamed)
        files[1] = renamed
    starts, reads = indexed(files)
    assert reads > 0
    assert starts[1] == [0, 22 if change == "size" else 21]
    assert indexed(files) == (starts, 0)


def test_a_torn_or_changed_index_is_not_trusted(tmp_path):
    files = write(tmp_path / "data")
    indexed(files)
    path = tmp_path / "data" / ".index-train.json"
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[position] ^= 4
        for content in (bytes(changed), whole[:position]):
            path.write_bytes(content)
            assert indexed(files) == (EXPECTED, 3)
            assert path.read_bytes() == whole


def test_an_index_that_cannot_be_beside_the_files_is_in_the_users_cache(
    tmp_path, cache, monkeypatch
):
    files = write(tmp_path / "data")
    write_atomically = storage.write_atomically

    def read_only(path, content):
        if path.is_relative_to(tmp_path / "data"):
            raise PermissionError(path)
        write_atomically(path, content)

    monkeypatch.setattr(storage, "write_atomically", read_only)
    assert indexed(files) == (EXPECTED, 3)
    assert len(list(cache.iterdir())) == 1
    assert indexed(files) == (EXPECTED, 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "data" / "cache"))
    assert indexed(files) == (EXPECTED, 3), "an index that is kept nowhere is only slower"


def test_an_object_store(object_store):
    files = write(object_store)
    assert indexed(files) == (EXPECTED, 3)
    assert (object_store / ".index-train.json").exists()
    assert indexed(files) == (EXPECTED, 0)
    files[1].write_bytes(record_bytes(b"longer"))
    assert indexed(files) == ([[0, 19, 39], [0, 22], [0]], 3)


def test_a_store_that_cannot_be_written_to(object_store, cache, monkeypatch):
    files = write(object_store)
    write_atomically = storage.write_atomically

    class StoreError(Exception):
        """Stores have errors of their own."""

    def read_only(path, content):
        if path.is_relative_to(object_store):
            raise StoreError
        write_atomically(path, content)

    monkeypatch.setattr(storage, "write_atomically", read_only)
    assert indexed(files) == (EXPECTED, 3)
    assert indexed(files) == (EXPECTED, 0)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"garbage" * 9,
            "{} is not a TFRecord file, or it is compressed; copy or prepare it again",
        ),
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
        indexed(files)
    assert str(error.value).startswith(message.format(files[1]))
    assert not (tmp_path / "data" / ".index-train.json").exists()


def test_threads_that_start_together_agree(tmp_path):
    files = write(tmp_path / "data")

    def index(_):
        (tmp_path / "data" / ".index-train.json").unlink(missing_ok=True)
        return indexed(files)[0]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(index, range(80))) == [EXPECTED] * 80
