import concurrent.futures
import gc
import hashlib
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax import InputError
from resnet_jax.data import Order, draws

seeds = st.integers(0, 2**64 - 1)
sizes = st.integers(1, 60)


@given(examples=sizes, batch_size=sizes, seed=seeds, epochs=st.integers(1, 4))
def test_every_epoch_shows_every_example_once(examples, batch_size, seed, epochs):
    order = Order(examples, batch_size, seed)
    steps = -(-epochs * examples // batch_size)
    seen = np.concatenate([order.indices(step) for step in range(steps)])[: epochs * examples]
    for epoch in seen.reshape(epochs, examples):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(examples))


@given(examples=sizes, batch_size=sizes, seed=seeds, step=st.integers(0, 10**9))
def test_batches_are_a_function_of_the_step_alone(examples, batch_size, seed, step):
    steps = range(step, step + 4)
    uninterrupted = Order(examples, batch_size, seed)
    expected = [uninterrupted.indices(k) for k in steps]
    for k in reversed(steps):
        np.testing.assert_array_equal(
            Order(examples, batch_size, seed).indices(k), expected[k - step]
        )
        assert expected[k - step].shape == (batch_size,)
        assert expected[k - step].dtype == np.int64


def test_seeds_and_epochs_differ():
    first_epochs = [tuple(Order(100, 100, seed).indices(0)) for seed in range(20)]
    first_epochs += [tuple(Order(100, 100, 0).indices(step)) for step in range(1, 20)]
    assert len(set(first_epochs)) == len(first_epochs)


def test_first_place_is_equally_likely_for_all():
    counts = np.bincount([Order(10, 10, seed).indices(0)[0] for seed in range(5000)])
    # Chi-squared with 9 degrees of freedom exceeds 33.7 once in 10,000 times.
    assert ((counts - 500) ** 2 / 500).sum() < 33.7


def test_order_stays_what_it_was():
    order = Order(examples=1437, batch_size=128, seed=0)
    seen = np.concatenate([order.indices(step) for step in range(30)])
    assert seen[:8].tolist() == [1051, 998, 162, 670, 664, 185, 322, 431]
    digest = hashlib.sha256(seen.astype("<i8").tobytes()).hexdigest()
    assert digest == "0228838356ccaee1747db52e36261877e584f462c54b81e6cd9dcef15c1daa07"


class Bits:
    """`draws.random_bits` of 100 examples, which can be held up, fail and be counted."""

    def __init__(self, monkeypatch):
        self.free, self.failing, self.asked, self.arrays = threading.Event(), set(), [], []
        self.free.set()
        self._original = draws.random_bits
        monkeypatch.setattr(draws, "random_bits", self)
        argsort = np.argsort
        monkeypatch.setattr(np, "argsort", lambda *a, **k: self._note(argsort(*a, **k)))

    def __call__(self, seed, stream, epoch, count):
        self.asked.append(epoch)
        if epoch in self.failing:
            raise MemoryError(f"epoch {epoch}")
        assert self.free.wait(10)
        return self._original(seed, stream, epoch, count)

    def _note(self, permutation):
        self.arrays.append(weakref.ref(permutation))
        return permutation


@pytest.fixture
def bits(monkeypatch):
    return Bits(monkeypatch)


def in_background(epoch):
    return [thread for thread in threading.enumerate() if thread.name == f"epoch {epoch}"]


def test_the_next_epoch_is_computed_in_the_background_from_the_middle_on(bits):
    order, expected = Order(100, 10, 3), [Order(100, 10, 3).indices(step) for step in range(12)]
    del bits.asked[:]
    for step in range(5):
        order.indices(step)
    assert bits.asked == [0]
    bits.free.clear()  # the present epoch goes on while the next one is being computed
    for step in range(5, 10):
        np.testing.assert_array_equal(order.indices(step), expected[step])
    (thread,) = in_background(1)
    assert thread.daemon  # the program may end meanwhile
    bits.free.set()
    thread.join()
    assert bits.asked == [0, 1]
    for step in (10, 11):
        np.testing.assert_array_equal(order.indices(step), expected[step])
    assert bits.asked == [0, 1]


def test_at_most_two_permutations_are_kept(bits):
    order = Order(100, 7, 3)
    for step in range(100):
        order.indices(step)
    for thread in in_background(7):
        thread.join()
    gc.collect()
    assert bits.asked == list(range(8))
    assert sum(array() is not None for array in bits.arrays) == 2


def test_an_error_is_raised_where_its_epoch_is_asked_for(bits):
    bits.failing.add(1)
    order = Order(100, 30, 3)
    for step in range(3):
        order.indices(step)
    with pytest.raises(MemoryError, match="epoch 1"):
        order.indices(3)  # runs across the end


def test_threads_that_ask_together_get_the_same_and_begin_it_once(bits):
    order, expected = Order(100, 10, 3), [Order(100, 10, 3).indices(step) for step in range(40)]
    del bits.asked[:]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for step in range(40):
            for indices in pool.map(order.indices, [step] * 8):
                np.testing.assert_array_equal(indices, expected[step])
    assert sorted(bits.asked) == list(range(5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 0), "a data set without examples has no order to train in"),
        ((1, 0, 0), "a batch has at least 1 example, and 0 were asked for"),
        ((1, 1, -1), "a seed is a whole number from 0 to 2**64 - 1, and -1 is not"),
        ((1, 1, 2**64), f"a seed is a whole number from 0 to 2**64 - 1, and {2**64} is not"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(InputError) as error:
        Order(*arguments)
    assert str(error.value) == message
