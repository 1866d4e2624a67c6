"""Threads that share the work on a batch."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from resnet_jax.errors import InputError


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_count(workers: int | None) -> int:
    """Returns the number of threads; by default `cores()`.

    Raises:
      InputError: The number is not positive.
    """
    if workers is None:
        return cores()
    if workers < 1:
        raise InputError(f"there is at least 1 worker, and {workers} were asked for")
    return workers


class Workers:
    """A pool of threads; their number changes the time alone, not the result."""

    def __init__(self, count: int | None = None) -> None:
        """Starts no thread yet; `worker_count` says how many there will be."""
        self._count = worker_count(count)
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="decode")

    def each(self, work: Callable[[int], None], count: int) -> None:
        """Calls `work` with each number from 0 to `count - 1`, in this order, and waits for all.

        After an exception no more are begun. Of several, that of the lowest number is raised.
        """
        numbers = iter(range(count))
        failures: dict[int, BaseException] = {}

        def run() -> None:
            # A task a thread: one a number would take 5% of the time of an image.
            while not failures and (number := next(numbers, None)) is not None:
                try:
                    work(number)
                except BaseException as error:
                    failures[number] = error

        try:
            wait([self._pool.submit(run) for _ in range(min(count, self._count))])
        except BaseException as interruption:
            failures[-1] = interruption  # stops the threads
            raise
        if failures:
            raise failures[min(failures)]
