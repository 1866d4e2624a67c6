import os
import resource
import threading

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from resnet_jax import InputError
from resnet_jax.data.sources import records, storage
from resnet_jax.data.sources.records import array_records, tfrecords
from resnet_jax.data.sources.storage import read_file
from tests.data.sources.storage_server import storage_server
from tests.data.sources.tfrecord_reference import write_tfrecord

COUNTS = [5, 0, 7, 1]


def contents(seed=0):
    rng = np.random.default_rng(seed)
    return [[rng.bytes(int(n)) for n in rng.integers(1, 6000, count)] for count in COUNTS]


def write_array_record(path, items):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for item in items:
        writer.write(item)
    writer.close()


def write(folder, kind):
    files = []
    for number, items in enumerate(contents()):
        files.append(epath.Path(folder) / f"set-train.{kind}-{number:05}-of-00004")
        (write_tfrecord if kind == "tfrecord" else write_array_record)(files[-1], items)
    return files


def opened(files, counts=COUNTS):
    if "tfrecord" in files[0].name:
        return tfrecords(files, counts, "train")
    return array_records(files, counts)


KINDS = pytest.mark.parametrize("kind", ["tfrecord", "array_record"])


@KINDS
def test_records_are_those_of_the_files_one_after_the_other(tmp_path, kind):
    source = opened(write(tmp_path, kind))
    expected = [item for items in contents() for item in items]
    assert len(source) == len(expected) == 13
    assert [source[i] for i in range(13)] == expected
    order = np.random.default_rng(1).permutation(13).tolist()
    assert [source[i] for i in order] == [expected[i] for i in order]


@KINDS
def test_threads_read_with_fewer_files_open_than_there_are(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(records, "most_open_files", lambda: 1)
    source = opened(write(tmp_path, kind))
    expected = [item for items in contents() for item in items]
    wrong = []

    def read(seed):
        for index in np.random.default_rng(seed).integers(0, 13, 300).tolist():
            if source[index] != expected[index]:
                wrong.append(index)

    before = len(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    # One that was opened last stays open.
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    del source
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_quarter_of_the_files_that_may_be_open_is_used(monkeypatch):
    for soft, expected in [
        (1024, 256),
        (20, 16),
        (10**6, 4096),
        (resource.RLIM_INFINITY, 4096),
    ]:
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert records.most_open_files() == expected


@KINDS
def test_another_number_of_records_is_refused(tmp_path, kind):
    files = write(tmp_path, kind)
    with pytest.raises(InputError) as error:
        opened(files, [5, 0, 8, 1])[6]
    assert str(error.value) == (
        f"{files[2]} has 7 records and dataset_info.json says 8; copy or prepare it again"
    )


@KINDS
def test_a_changed_byte_is_refused(tmp_path, kind):
    files = write(tmp_path, kind)
    item = contents()[2][3]
    content = bytearray(files[2].read_bytes())
    content[content.index(item) + len(item) // 2] ^= 1
    files[2].write_bytes(bytes(content))
    source = opened(files)
    assert source[7] == contents()[2][2]
    with pytest.raises(InputError) as error:
        source[8]
    assert str(error.value).startswith(str(files[2]))
    if kind == "tfrecord":
        assert "has a record that is not what was written, that of byte" in str(error.value)


@KINDS
@pytest.mark.parametrize("content", [b"", b"garbage" * 20_000, "half"])
def test_a_damaged_file_is_refused(tmp_path, kind, content):
    files = write(tmp_path, kind)
    whole = files[2].read_bytes()
    files[2].write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(InputError) as error:
        opened(files)[6]
    assert str(error.value).startswith(str(files[2]))
    assert "\n" not in str(error.value)


@KINDS
def test_a_file_that_has_gone_is_refused(tmp_path, kind):
    files = write(tmp_path, kind)
    files[2].unlink()
    with pytest.raises(InputError) as error:
        opened(files)[6]
    assert str(error.value).startswith(f"{files[2]} cannot be read: ")


def test_ranges_of_an_object_store(object_store, monkeypatch):
    path = object_store / "file"
    path.write_bytes(bytes(range(100)))
    assert read_file(path, 10, 13) == b"\n\x0b\x0c"
    assert read_file(path, 98, 200) == b"bc"
    with pytest.raises(OSError, match="none"):
        read_file(object_store / "none", 0, 1)

    assert read_file(path) == bytes(range(100))

    def no_store(_):
        raise ImportError

    monkeypatch.setattr(storage, "url_to_fs", no_store)
    assert read_file(path, 10, 13) == b"\n\x0b\x0c"
    assert read_file(path) == bytes(range(100))


def test_array_record_of_a_store_over_the_network(tmp_path, monkeypatch):
    files = write(tmp_path, "array_record")
    with storage_server(tmp_path) as address:
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", address)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        remote = array_records([epath.Path(f"gs://bucket/{file.name}") for file in files], COUNTS)
        expected = [item for items in contents() for item in items]
        order = np.random.default_rng(1).permutation(13).tolist()
        assert [remote[i] for i in order] == [expected[i] for i in order]
        gone = array_records([epath.Path("gs://bucket/gone")], [1])
        with pytest.raises(InputError, match="gs://bucket/gone cannot be read: "):
            gone[0]
