"""How long something takes once it goes as it usually does."""

import math
import statistics
import time
from collections.abc import Callable, Iterator

from resnet_jax import parallel

_LEAST, _MOST = 3, 1000


def seconds_of(work: Callable[[], object], limit: float) -> float:
    """Returns the median time of a call, in seconds; the first call does not count.

    Args:
      work: What is timed. Of several processes each calls it equally often.
      limit: About how long all calls may take, in seconds. Three calls are timed even if they take
        longer, or one if that alone does.
    """
    work()
    times = [_timed(work)]
    more = parallel.agree(calls_within(limit, times[0])) - 1
    times += [_timed(work) for _ in range(more)]
    return statistics.median(times)


def pace(items: Iterator[object], limit: float) -> float:
    """Returns the mean time between two items of an iterator, in seconds.

    The mean, because what is made ahead of time comes in bursts; the first two items do not count.

    Args:
      items: An iterator without end, which waits until each item is there.
      limit: As for `seconds_of`.
    """
    next(items)
    next(items)
    first = _timed(lambda: next(items))
    more = parallel.agree(calls_within(limit, first)) - 1
    start = time.perf_counter()
    for _ in range(more):
        next(items)
    return (first + time.perf_counter() - start) / (1 + more)


def calls_within(limit: float, estimate: float) -> int:
    """Returns how many calls are timed, if one takes as long as estimated, in seconds."""
    if estimate > limit:
        return 1
    return min(max(math.ceil(limit / max(estimate, 1e-9)), _LEAST), _MOST)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
