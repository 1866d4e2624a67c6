"""Batches prepared ahead of time in a thread."""

import queue
import threading
import weakref
from collections.abc import Iterator
from typing import Generic, NamedTuple, Self, TypeVar

from resnet_jax.errors import InputError

T = TypeVar("T")

_PATIENCE = 5.0
"""Seconds that closing waits for an item in preparation; a read that hangs must not hang it."""


class _End(NamedTuple):
    """Follows the last item."""

    error: BaseException | None


class Prefetch(Iterator[T], Generic[T]):
    """An iterator over another one's items, prepared ahead of time in a thread.

    It is also a context manager; `close`, leaving the context, dropping the iterator and the end of
    the program all end the thread, which then closes the other iterator.
    """

    def __init__(self, iterator: Iterator[T], depth: int) -> None:
        self._items: queue.Queue[T | _End] = queue.Queue()
        self._room = threading.Semaphore(depth)
        closed = threading.Event()
        # The thread must not refer to this object, or it would never be dropped.
        thread = threading.Thread(
            target=_produce,
            args=(iterator, self._items, self._room, closed),
            name="prefetch",
            daemon=True,
        )
        self._finalizer = weakref.finalize(self, _close, self._room, closed, thread)
        thread.start()

    def __next__(self) -> T:
        if not self._finalizer.alive:
            raise StopIteration
        item = self._items.get()
        if isinstance(item, _End):
            self._items.put(_End(None))  # for the next call
            raise StopIteration if item.error is None else item.error
        self._room.release()
        return item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread and drops its items; the iterator is at its end then."""
        self._finalizer()


def prefetch(iterator: Iterator[T], depth: int = 2) -> Prefetch[T]:
    """Returns an iterator over the same items, prepared ahead of time in a thread.

    An exception of the other iterator is raised where its item would have come.

    Args:
      iterator: The items. From now on only the thread may use it, which also closes it.
      depth: How many items may be waiting, the one in preparation included.

    Raises:
      InputError: The depth is not positive.
    """
    if depth < 1:
        raise InputError(f"prefetching is at least 1 batch deep, and {depth} is not")
    return Prefetch(iterator, depth)


def _produce(
    iterator: Iterator[T],
    items: "queue.Queue[T | _End]",
    room: threading.Semaphore,
    closed: threading.Event,
) -> None:
    error = None
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
    except BaseException as raised:
        error = raised
    items.put(_End(error))


def _close(room: threading.Semaphore, closed: threading.Event, thread: threading.Thread) -> None:
    closed.set()
    room.release()
    # The garbage collector may run this in any thread, that one included.
    if thread is not threading.current_thread():
        thread.join(_PATIENCE)
