"""Threads that share the work on a batch."""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from resnet_jax.errors import InputError


class Workers:
    """A number of threads; how many there are decides about the time alone."""

    def __init__(self, count: int | None = None) -> None:
        """Makes them.

        Args:
          count: How many; by default as many as the machine has cores.

        Raises:
          InputError: The number is not positive.
        """
        if count is not None and count < 1:
            raise InputError(f"there is at least 1 worker, and {count} were asked for")
        self._count = count or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="decode")

    def each(self, work: Callable[[int], None], count: int) -> None:
        """Calls `work` with each number from 0 to `count - 1`, and waits for all.

        An exception is raised here. When there are several, it is the one of the least number.
        """
        # Four pieces a thread: few enough to be cheap, enough to even out what takes longer.
        pieces = min(count, 4 * self._count)
        bounds = [count * piece // pieces for piece in range(pieces + 1)] if pieces else []

        def do(start: int, stop: int) -> None:
            for number in range(start, stop):
                work(number)

        futures = [self._pool.submit(do, *ends) for ends in itertools.pairwise(bounds)]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()
