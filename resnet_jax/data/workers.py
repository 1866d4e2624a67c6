"""Threads that share the work on a batch."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from resnet_jax.errors import InputError


def worker_count(asked: int | None) -> int:
    """Returns how many threads work: as many as asked for, or as there are cores for this process.

    Raises:
      InputError: The number is not positive.
    """
    if asked is None:
        return cores()
    if asked < 1:
        raise InputError(f"there is at least 1 worker, and {asked} were asked for")
    return asked


def cores() -> int:
    """Returns how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """A number of threads; how many there are decides about the time alone."""

    def __init__(self, count: int | None = None) -> None:
        """Makes them.

        Args:
          count: How many; by default as many as there are cores for this process.

        Raises:
          InputError: The number is not positive.
        """
        self._count = worker_count(count)
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="decode")

    def each(self, work: Callable[[int], None], count: int) -> None:
        """Calls `work` with each number from 0 to `count - 1`, and waits for all.

        An exception is raised here. When there are several, it is the one of the least number.
        """
        # One at a time: images differ in size, and nobody waits for long at the end of a batch.
        numbers = iter(range(count))
        failures: dict[int, BaseException] = {}

        def work_on() -> None:
            while not failures:
                number = next(numbers, None)  # one step of the interpreter: no two get the same
                if number is None:
                    return
                try:
                    work(number)
                except BaseException as error:
                    failures[number] = error

        try:
            wait([self._pool.submit(work_on) for _ in range(min(count, self._count))])
        except BaseException as interruption:
            failures[-1] = interruption  # so that the threads stop
            raise
        if failures:
            # Numbers are begun in their order: that of the least is there, however long it took.
            raise failures[min(failures)]
