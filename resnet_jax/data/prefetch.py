"""The next batches, made while the device works on this one."""

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from resnet_jax.errors import InputError

T = TypeVar("T")

_PATIENCE = 5.0
"""Seconds that closing waits for an item that is being made; a read that hangs must not hang us."""


class Prefetch(Iterator[T]):
    """An iterator over another one's items, which a thread of its own makes ahead of time.

    It is also a context manager; `close`, leaving the context, dropping the iterator and the end of
    the program all end the thread, which then closes the other iterator.
    """

    def __init__(self, iterator: Iterator[T], depth: int) -> None:
        # The thread must not hold this object, or it would never be dropped.
        self._queue = _Queue[T](depth)
        thread = threading.Thread(
            target=_produce, args=(iterator, self._queue), name="prefetch", daemon=True
        )
        self._finalizer = weakref.finalize(self, _end, self._queue, thread)
        thread.start()

    def __next__(self) -> T:
        return self._queue.get()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread and forgets what it made; there are no more items then."""
        self._finalizer()


def prefetch(iterator: Iterator[T], depth: int = 2) -> Prefetch[T]:
    """Returns an iterator over the same items, made in a thread, a few ahead of time.

    An exception of the other iterator is raised where its item would have come.

    Args:
      iterator: The items. It belongs to the thread from now on, and is closed by it.
      depth: How many items may wait, the one that is being made included.

    Raises:
      InputError: The depth is not positive.
    """
    if depth < 1:
        raise InputError(f"prefetching is at least 1 batch deep, and {depth} is not")
    return Prefetch(iterator, depth)


class _Queue(Generic[T]):
    """Items from one thread to another; unlike `queue.Queue` it can be closed from either end."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._complete = False
        self._error: BaseException | None = None

    def wait_for_room(self) -> bool:
        """Waits until another item may be made; False if none is wanted any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._depth)
            return not self._closed

    def put(self, item: T) -> None:
        with self._changed:
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()

    def complete(self, error: BaseException | None) -> None:
        with self._changed:
            self._complete = True
            self._error = None if self._closed else error
            self._changed.notify_all()

    def get(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._complete or self._closed)
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
            error, self._error = self._error, None
        if error is None:
            raise StopIteration
        raise error

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._items.clear()
            self._error = None
            self._changed.notify_all()


def _produce(iterator: Iterator[T], queue: _Queue[T]) -> None:
    error = None
    try:
        _fill(iterator, queue)
    except BaseException as raised:
        error = raised
    queue.complete(error)


def _fill(iterator: Iterator[T], queue: _Queue[T]) -> None:
    try:
        while queue.wait_for_room():
            queue.put(next(iterator))
    except StopIteration:
        pass
    finally:
        # Generators have one, plain iterators have not.
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _end(queue: _Queue[T], thread: threading.Thread) -> None:
    queue.close()
    # The garbage collector may get here in any thread, this one included.
    if thread is not threading.current_thread():
        thread.join(_PATIENCE)
