import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax import InputError
from resnet_jax.data import Order

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
