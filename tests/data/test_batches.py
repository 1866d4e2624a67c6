import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax import InputError
from resnet_jax.data import augmentation, eval_batches, train_batches


class Numbered:
    """Images that say which one they are."""

    class_names = ("even", "odd")
    image_shape = (1, 1, 2)

    def __init__(self, count):
        self._count = count

    def __len__(self):
        return self._count

    def read(self, indices, crops=None):
        assert crops is None
        assert ((indices >= 0) & (indices < self._count)).all()
        pixels = np.stack(np.divmod(indices, 256), axis=-1).astype(np.uint8)
        return pixels.reshape(-1, 1, 1, 2), (indices % 2).astype(np.int32)


def number(batch):
    return batch["image"].reshape(-1, 2).astype(int) @ np.array([256, 1])


def train(count=100, batch_size=16, seed=0, start=0, stop=10, rows=None):
    return train_batches(
        Numbered(count),
        augmentation("pad_crop_flip", image_size=1),
        batch_size=batch_size,
        seed=seed,
        start=start,
        stop=stop,
        rows=rows or slice(None),
    )


def assert_equal(batch, other):
    assert batch.keys() == other.keys()
    for name in batch:
        np.testing.assert_array_equal(batch[name], other[name])
        assert batch[name].dtype == other[name].dtype


def test_train_batches():
    batches = list(train())
    assert len(batches) == 10
    for batch in batches:
        assert {name: array.dtype for name, array in batch.items()} == {
            "image": np.uint8,
            "label": np.int32,
            "crop_offset": np.int32,
            "flip": np.bool_,
        }
        assert {len(array) for array in batch.values()} == {16}
        np.testing.assert_array_equal(batch["label"], number(batch) % 2)
    epoch = np.concatenate([number(batch) for batch in batches])[:100]
    np.testing.assert_array_equal(np.sort(epoch), np.arange(100))


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_processes_share_a_global_batch(processes):
    share = 16 // processes
    parts = [train(rows=slice(i * share, (i + 1) * share)) for i in range(processes)]
    for whole, *shares in zip(train(), *parts, strict=True):
        joined = {name: np.concatenate([part[name] for part in shares]) for name in whole}
        assert_equal(joined, whole)


@given(start=st.integers(0, 40), length=st.integers(0, 6), seed=st.integers(0, 2**64 - 1))
def test_restarting_goes_on_as_if_nothing_had_been(start, length, seed):
    stop = start + length
    uninterrupted = itertools.islice(train(seed=seed, stop=stop), start, stop)
    restarted = train(seed=seed, start=start, stop=stop)
    for batch, expected in zip(restarted, uninterrupted, strict=True):
        assert_equal(batch, expected)


def test_restarting_reads_nothing_of_what_came_before(monkeypatch):
    read = []
    original = Numbered.read

    def noted(self, indices, crops=None):
        read.append(indices)
        return original(self, indices, crops)

    monkeypatch.setattr(Numbered, "read", noted)
    batch = next(iter(train(start=1000, stop=1010)))
    np.testing.assert_array_equal(np.concatenate(read), number(batch))


def test_seeds_differ():
    one, other = (np.concatenate([number(b) for b in train(seed=seed)]) for seed in (0, 1))
    assert (one != other).any()


@given(
    count=st.integers(1, 300),
    share=st.integers(1, 40),
    processes=st.sampled_from([1, 2, 3, 8]),
)
def test_evaluation_sees_every_example_once(count, share, processes):
    batch_size = share * processes
    by_process = [
        list(
            eval_batches(
                Numbered(count), batch_size=batch_size, rows=slice(i * share, (i + 1) * share)
            )
        )
        for i in range(processes)
    ]
    assert {len(batches) for batches in by_process} == {-(-count // batch_size)}
    seen = []
    for shares in zip(*by_process, strict=True):
        for batch in shares:
            assert {len(array) for array in batch.values()} == {share}
            assert batch["mask"].dtype == np.float32
            real = batch["mask"] == 1
            assert (batch["mask"][~real] == 0).all()
            assert not batch["image"][~real].any()
            np.testing.assert_array_equal(batch["label"][real], number(batch)[real] % 2)
            seen.extend(number(batch)[real].tolist())
    assert seen == list(range(count))


def test_evaluating_nothing_gives_nothing():
    assert list(eval_batches(Numbered(0), batch_size=4, rows=slice(0, 4))) == []


def test_an_empty_batch_is_refused_with_the_call():
    for call in (
        lambda: train(batch_size=0, rows=slice(0, 1)),
        lambda: eval_batches(Numbered(9), batch_size=0, rows=slice(0, 1)),
    ):
        with pytest.raises(InputError, match=r"^a batch has at least 1 example, and 0 were asked"):
            call()


def test_training_on_nothing_is_refused():
    with pytest.raises(InputError, match=r"^a data set without examples has no order"):
        train(count=0)
