"""Batches prepared ahead of time in a thread."""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import NamedTuple, TypeVar

from resnet_jax.errors import InputError

T = TypeVar("T")

_PATIENCE = 5.0
"""Seconds that closing waits for an item in preparation; a read that hangs must not hang it."""


class _End(NamedTuple):
    """Follows the last item."""

    error: BaseException | None = None


@contextlib.contextmanager
def prefetch(iterator: Iterator[T], depth: int = 2) -> Iterator[Iterator[T]]:
    """Gives an iterator over the same items, prepared ahead of time in a thread.

    An exception of the other iterator is raised where its item would have come. Leaving the context
    ends the thread, which then closes the other iterator.

    Args:
      iterator: The items. From now on only the thread may use it.
      depth: How many items may be waiting, the one in preparation included.

    Raises:
      InputError: The depth is not positive.
    """
    if depth < 1:
        raise InputError(f"prefetching is at least 1 batch deep, and {depth} is not")
    items: queue.Queue[T | _End] = queue.Queue()
    room, closed = threading.Semaphore(depth), threading.Event()

    def produce() -> None:
        end = _End()
        try:
            try:
                while room.acquire() and not closed.is_set():
                    items.put(next(iterator))
            except StopIteration:
                pass
            finally:
                close = getattr(iterator, "close", None)  # generators have one
                if close is not None:
                    close()
        except BaseException as error:
            end = _End(error)
        items.put(end)

    def consume() -> Generator[T, None, None]:
        while not isinstance(item := items.get(), _End):
            room.release()
            yield item
        if item.error is not None:
            raise item.error

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        with contextlib.closing(consume()) as consumer:
            yield consumer
    finally:
        closed.set()
        room.release()
        thread.join(_PATIENCE)
