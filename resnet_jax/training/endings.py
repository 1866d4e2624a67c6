"""An error that one process meets ends the run on all of them, after the same step.

The others may be ahead of a process by the steps that are dispatched before the oldest is done, and
then wait for it in a reduction. So the input of each is read some batches further than it is used:
a process that finds a batch missing still has those before it, tells the others how far they go,
and when all know, all use them. Then the state is whole on every process, and can be saved.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Self, TypeVar

from resnet_jax.board import Board
from resnet_jax.errors import retold, told

Batch = TypeVar("Batch")


class Ending(NamedTuple):
    """The end of a run before its time.

    Attributes:
      step: The last step that is taken.
      process: Which process ends it.
      error: Why.
    """

    step: int
    process: int
    error: Exception


class Endings:
    """What ends the run, on this process or on another: the first, if there are several.

    A step costs no more than a look at an attribute. With one process nothing is read further than
    it is used.
    """

    def __init__(self, board: Board | None, *, steps_ahead: int, last: int) -> None:
        """Prepares to hear of endings, inside of the `with` statement.

        Args:
          board: How the processes tell each other; None where there is only one.
          steps_ahead: How many steps a process dispatches before the oldest of them is done.
          last: The step at which the run ends in any case.
        """
        self._board = board
        self._lead = 0 if board is None else steps_ahead + 1
        self._last = last
        self._first: Ending | None = None
        self._announced = False
        self._lock = threading.Lock()
        self._reading = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if self._board is not None:
            self._reading.enter_context(self._board.read(self._hear))
        return self

    def __exit__(self, *_: object) -> None:
        self._reading.close()

    def after(self, step: int) -> Exception | None:
        """Returns why the run ends after this step, or None if it goes on."""
        first = self._first
        return first.error if first is not None and first.step <= step else None

    def announce(self, step: int, error: Exception) -> None:
        """Ends the run on all processes; a process that announced one says no more.

        Returns when the others know of it.

        Args:
          step: A step that no process has got past.
          error: Why.
        """
        with self._lock:
            if self._announced:
                return
            self._announced = True
        if self._board is None:
            self._note(Ending(step, 0, error))
        else:
            self._note(Ending(step, self._board.process, error))
            self._board.post(f"{step} {told(error)}")

    def soon(self, step: int, error: Exception) -> None:
        """Ends the run because of what went wrong after this step, as soon as all can."""
        self.announce(min(step + self._lead, self._last), error)

    def watch(self, batches: Iterator[Batch], start: int) -> Iterator[Batch]:
        """Yields batches; where one cannot be had, those before it are the last.

        Args:
          batches: The batches of this process.
          start: The step before the first of them.
        """
        held: deque[Batch] = deque()
        step = start
        while True:
            try:
                held.append(next(batches))
            except StopIteration:
                break
            except Exception as error:
                self.announce(step, error)
                break
            step += 1
            if len(held) > self._lead:
                yield held.popleft()
        yield from held

    def _hear(self, process: int, message: str) -> None:
        step, _, text = message.partition(" ")
        self._note(Ending(int(step), process, retold(text, process)))

    def _note(self, ending: Ending) -> None:
        with self._lock:
            if self._first is None or ending[:2] < self._first[:2]:
                self._first = ending
