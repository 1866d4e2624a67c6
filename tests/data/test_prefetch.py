import sys
import threading
import time

import pytest

from resnet_jax import InputError
from resnet_jax.data import prefetch


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert wait_until(lambda: not threads())


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


class Counter:
    """Counts up, and notes its items and the thread that closed it."""

    def __init__(self, stop=10**9):
        self.made = 0
        self.closed_by = None
        self._stop = stop

    def __iter__(self):
        return self

    def __next__(self):
        if self.made == self._stop:
            raise StopIteration
        self.made += 1
        return self.made - 1

    def close(self):
        self.closed_by = threading.current_thread().name


@pytest.mark.parametrize("depth", [1, 2, 7, 100])
def test_items_come_all_and_in_order(depth):
    with prefetch(iter(range(50)), depth) as items:
        assert list(items) == list(range(50))
        assert next(items, None) is None


def test_the_thread_stays_depth_items_ahead():
    counter = Counter()
    with prefetch(counter, depth=3) as items:
        for taken in range(1, 6):
            next(items)
            assert wait_until(lambda taken=taken: counter.made == taken + 3)
            time.sleep(0.01)
            assert counter.made == taken + 3


def test_items_are_made_while_the_consumer_works():
    asked = threading.Event()

    def producer():
        yield 0
        asked.set()
        yield 1

    with prefetch(producer()) as items:
        assert next(items) == 0
        assert asked.wait(5)


def test_an_error_comes_after_the_items_before_it():
    def producer():
        yield 0
        yield 1
        raise OSError("the disk is gone")

    with prefetch(producer()) as items:
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(OSError, match=r"the disk is gone") as error:
            next(items)
        assert error.traceback[-1].name == "producer"
        assert next(items, None) is None


def test_an_error_in_closing_is_no_hang():
    def producer():
        try:
            yield 0
        finally:
            raise OSError("it does not close")

    with prefetch(producer()) as items:
        assert next(items) == 0
        with pytest.raises(OSError, match=r"it does not close"):
            next(items)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_early_ends_the_thread(taken):
    counter = Counter()
    with prefetch(counter) as items:
        for expected in range(taken):
            assert next(items) == expected
    assert not threads()
    assert counter.closed_by == "prefetch"
    assert next(items, None) is None


def test_leaving_the_context_by_an_error_ends_the_thread():
    with pytest.raises(KeyError), prefetch(Counter()):
        raise KeyError
    assert not threads()


def test_an_error_nobody_waits_for_is_dropped():
    started = threading.Event()
    proceed = threading.Event()

    def producer():
        started.set()
        proceed.wait(5)
        yield int("no number")

    with prefetch(producer()):
        assert started.wait(5)
        proceed.set()


def test_dropping_a_generator_that_uses_it_ends_the_thread():
    def doubled():
        with prefetch(Counter()) as items:
            for item in items:
                yield 2 * item

    generator = doubled()
    assert [next(generator), next(generator)] == [0, 2]
    del generator
    assert not threads()


def test_closing_does_not_wait_for_ever(monkeypatch):
    module = sys.modules["resnet_jax.data.prefetch"]  # the package has a function of this name
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    release = threading.Event()

    def producer():
        yield 0
        release.wait(5)

    with prefetch(producer()) as items:
        assert next(items) == 0
        begin = time.monotonic()
    assert time.monotonic() - begin < 2
    release.set()


def test_no_depth_is_refused():
    with pytest.raises(InputError, match=r"^prefetching is at least 1 batch deep, and 0 is not$"):
        prefetch(iter(()), depth=0).__enter__()
