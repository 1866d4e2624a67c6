import contextlib
import json

import numpy as np
import pytest

from resnet_jax import InputError
from resnet_jax.data import (
    BadRecords,
    DecodedImages,
    Example,
    MemoryImages,
    augmentation,
    eval_batches,
    load_images,
    measure_statistics,
    read_ledger,
    train_batches,
)
from tests.data.pictures import encode, photo, write_folder

COUNT = 40
BAD = {3: b"", 17: encode(photo(30, 30), "JPEG")[:-100], 18: None, 31: b"no image"}


class Source:
    """Images of their own, of which some cannot be decoded and one cannot be read."""

    class_names = ("zero", "one", "two")

    def __init__(self, count=COUNT, bad=BAD):
        self._images = [encode(photo(30 + i, 40, seed=i), "JPEG") for i in range(count)]
        self._bad = bad

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        image = self._bad.get(index, self._images[index])
        if image is None:
            raise InputError("the file has gone")
        return Example(image, index % 3, f"key{index}")


def images(bad_records, workers=2, **options):
    return DecodedImages(Source(**options), 16, workers=workers, bad_records=bad_records)


def batches(bad_records, start=0, stop=10, rows=slice(None), workers=2):
    return train_batches(
        images(bad_records, workers),
        augmentation("inception_crop", image_size=16),
        batch_size=8,
        seed=7,
        start=start,
        stop=stop,
        rows=rows,
    )


@pytest.fixture
def policy():
    """Makes policies, and writes their ledgers at the end."""
    with contextlib.ExitStack() as stack:

        def make(share=1.0, path=None):
            made = BadRecords("train", share, ledger=path)
            stack.callback(made.sync)
            return made

        yield make


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_others_take_the_place_of_bad_ones(tmp_path, policy):
    bad_records = policy(path=tmp_path / "bad" / "0.jsonl")
    good = DecodedImages(Source(bad={}), 16)
    expected, expected_labels = good.read(np.arange(COUNT))
    pixels, labels = images(bad_records).read(np.arange(COUNT))
    for index in range(COUNT):
        same = (pixels[index] == expected).all(axis=(1, 2, 3))
        assert same[index] == (index not in BAD)
        (shown,) = np.flatnonzero(same)
        assert shown not in BAD
        assert labels[index] == expected_labels[shown]
    bad_records.sync()
    ledger = read_ledger(tmp_path / "bad" / "0.jsonl")
    assert {entry["index"] for entry in ledger} == BAD.keys()
    assert [entry for entry in ledger if entry["index"] == 18] == [
        {"split": "train", "index": 18, "key": None, "error": "the file has gone"}
    ]
    assert {entry["key"] for entry in ledger} == {"key3", "key17", "key31", None}


def test_every_example_is_entered_once(tmp_path, policy):
    path = tmp_path / "ledger"
    for _ in range(2):
        bad_records = policy(path=path)
        reader = images(bad_records)
        for _ in range(3):
            reader.read(np.arange(COUNT))
        bad_records.sync()
        assert bad_records.failures >= 3 * len(BAD)
        assert sorted(entry["index"] for entry in read_ledger(path)) == sorted(BAD)


@pytest.mark.parametrize("torn", [1, 20, 60])
def test_a_ledger_goes_on_after_a_kill(tmp_path, torn, policy):
    path = tmp_path / "ledger"
    for lost in (torn, 0):
        bad_records = policy(path=path)
        images(bad_records).read(np.arange(COUNT))
        bad_records.sync()
        path.write_bytes(path.read_bytes()[: -lost or None])
    assert sorted(entry["index"] for entry in read_ledger(path)) == sorted(BAD)


def test_nothing_bad_makes_no_ledger(tmp_path, policy):
    with_none = policy(path=tmp_path / "ledger")
    images(with_none, bad={}).read(np.arange(COUNT))
    with_none.sync()
    assert list(tmp_path.iterdir()) == []
    assert read_ledger(tmp_path / "ledger") == []


def test_nothing_is_written_before_sync(tmp_path, policy):
    bad_records = policy(path=tmp_path / "ledger")
    in_memory = MemoryImages(images(bad_records))
    assert len(in_memory) == COUNT
    assert list(tmp_path.iterdir()) == []
    bad_records.sync()
    assert {entry["index"] for entry in read_ledger(tmp_path / "ledger")} == BAD.keys()


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_batches_do_not_depend_on_processes_or_threads(processes, policy):
    share = 8 // processes
    parts = [
        batches(policy(), rows=slice(i * share, (i + 1) * share), workers=1 + i)
        for i in range(processes)
    ]
    for whole, *shares in zip(batches(policy(), workers=3), *parts, strict=True):
        joined = {name: np.concatenate([part[name] for part in shares]) for name in whole}
        assert_equal(joined, whole)


def test_a_run_that_goes_on_gets_the_same_batches(policy):
    for start in (1, 4, 9):
        uninterrupted = list(batches(policy()))[start:]
        for one, other in zip(batches(policy(), start=start), uninterrupted, strict=True):
            assert_equal(one, other)


def test_statistics_are_of_what_takes_the_place(policy):
    reader = images(policy())
    measured = measure_statistics(reader, "pixel", "channel")
    pixels, _ = reader.read(np.arange(COUNT))
    np.testing.assert_allclose(measured.mean, pixels.mean(0), rtol=1e-6)


def test_evaluation_leaves_nothing_out():
    with pytest.raises(InputError, match=r"^image key3 cannot be decoded: it is not a JPEG"):
        list(eval_batches(images(None), batch_size=8, rows=slice(None)))


@pytest.mark.parametrize(("share", "failures"), [(0, 1), (1e-3, 11), (0.05, 17)])
def test_too_many_end_the_run(tmp_path, share, failures, policy):
    bad_records = policy(share, tmp_path / "ledger")
    reader = images(bad_records, workers=1, count=120, bad=dict.fromkeys(range(0, 120, 2), b""))
    with pytest.raises(InputError) as error:
        reader.read(np.arange(120))
    assert bad_records.failures == failures
    last = read_ledger(tmp_path / "ledger")[-1]
    assert str(error.value) == (
        f"{failures} of the 120 examples of train cannot be read, which is more than the share of "
        f"{share:g}; {tmp_path / 'ledger'} lists them; the last is number {last['index']}: "
        f"{last['error']}"
    )


def test_an_example_counts_once_however_often_it_is_read(policy):
    bad_records = policy(1e-3)
    reader = images(bad_records, count=50, bad={7: b""})
    for _ in range(30):
        reader.read(np.arange(50))
    assert bad_records.failures == 30


def test_nothing_readable_ends_the_run(policy):
    message = (
        r"^example number 2 cannot be read, and neither can any of those that would take its place$"
    )
    with pytest.raises(InputError, match=message):
        images(policy(), bad=dict.fromkeys(range(COUNT), b"")).read(np.array([2]))
    with pytest.raises(InputError, match=r"^example number 0 cannot be read"):
        images(policy(), count=1, bad={0: b""}).read(np.array([0]))


def test_no_memory_is_no_bad_record(policy):
    class Full(Source):
        def __getitem__(self, index):
            raise MemoryError

    with pytest.raises(MemoryError):
        DecodedImages(Full(), 16, bad_records=policy()).read(np.arange(4))


def test_the_last_word_is_written_where_the_ledger_will_be(tmp_path):
    bad_records = BadRecords("train", 0.0, ledger=tmp_path / "new" / "ledger")
    with pytest.raises(InputError, match=r"/new/ledger lists them"):
        images(bad_records, workers=1).read(np.arange(COUNT))
    (entry,) = read_ledger(tmp_path / "new" / "ledger")
    assert entry["index"] == 3


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_no_share_is_refused(share):
    message = rf"^the share of bad examples is from 0 to 1, and {share} is not$"
    with pytest.raises(InputError, match=message):
        BadRecords("train", share)


def test_files_that_vanish_are_bad_records(tmp_path, policy):
    write_folder(tmp_path / "data", {"train": {"a": 5, "b": 5}})
    bad_records = policy(path=tmp_path / "ledger")
    reader = load_images(
        "folder", "train", 16, path=tmp_path / "data", in_memory=False, bad_records=bad_records
    )
    gone = next((tmp_path / "data" / "train" / "a").iterdir())
    gone.unlink()
    reader.read(np.arange(10))
    bad_records.sync()
    (entry,) = read_ledger(tmp_path / "ledger")
    assert gone.name in entry["error"]
    assert json.loads((tmp_path / "ledger").read_bytes()) == entry
