"""Work that threads do ahead of time, with its results in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def in_order(
    work: Callable[[_In], _Out], tasks: Iterable[_In], workers: int
) -> Generator[_Out, None, None]:
    """Yields the results of some work in the order of its tasks.

    Args:
      work: What is done with each task.
      tasks: The tasks. Only a few are taken ahead of the result that is wanted.
      workers: How many threads work.
    """
    waiting: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
