import os
import threading
import time

import pytest

from resnet_jax import InputError
from resnet_jax.data.workers import Workers, worker_count


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("numbers", [0, 1, 5, 100])
def test_every_number_is_worked_on_once(count, numbers):
    done = []
    Workers(count).each(done.append, numbers)
    assert sorted(done) == list(range(numbers))


def test_as_many_threads_work_at_once():
    together = threading.Barrier(3, timeout=5)

    def work(number):
        together.wait()

    Workers(3).each(work, 3)


def test_the_error_of_the_least_number_is_raised():
    def work(number):
        if number % 2:
            time.sleep(0.01 * (10 - number))  # the later, the sooner
            raise ValueError(number)

    for _ in range(3):
        with pytest.raises(ValueError, match=r"^1$"):
            Workers(4).each(work, 10)


def test_no_workers_are_refused():
    with pytest.raises(InputError, match=r"^there is at least 1 worker, and 0 were asked for$"):
        Workers(0)


def test_by_default_every_core_that_this_process_may_use_has_a_worker(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 6}, raising=False)
    assert worker_count(None) == 3
    assert worker_count(7) == 7
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert worker_count(None) == 2
