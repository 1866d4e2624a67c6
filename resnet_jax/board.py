"""Messages from one process of a run to the others, past the devices."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import jax


class Store(Protocol):
    """What of the store of jax's coordinator is used."""

    def key_value_set(self, key: str, value: str, /) -> None:
        """Stores a text."""
        ...

    def key_value_dir_get(self, key: str, /) -> list[tuple[str, str]]:
        """Returns the keys that begin like this one, with their texts."""
        ...


class Board:
    """A board on which each process can leave one message, which the others find before long.

    A thread looks at it now and then, so that it costs the process nothing to look. That is in the
    context of the board, and all processes have to be in it.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        process: int,
        processes: int,
        interval: float = 2.0,
        patience: float = 60.0,
    ) -> None:
        """Prepares to look.

        Args:
          store: Where the messages are.
          name: What their keys begin with; the same on all processes, and of this board alone.
          process: The number of this process.
          processes: How many there are.
          interval: Seconds from one look to the next.
          patience: Seconds for which `post` waits for processes that do not look.
        """
        self.process = process
        self._store = store
        self._name = name
        self._processes = processes
        self._interval = interval
        self._patience = patience
        self._closed = threading.Event()

    @contextlib.contextmanager
    def read(self, hear: Callable[[int, str], None]) -> Iterator[None]:
        """Calls `hear` with process and message, in a thread, for each message of another one."""
        thread = threading.Thread(target=self._read, args=(hear,), name="board", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closed.set()
            thread.join(self._interval)

    def post(self, message: str) -> None:
        """Leaves a message, and returns when all others have heard it, or out of patience."""
        end = time.monotonic() + self._patience
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the others have ended
            self._store.key_value_set(f"{self._name}/said/{self.process}", message)
            while time.monotonic() < end:
                heard = self._store.key_value_dir_get(f"{self._name}/heard/{self.process}/")
                if len(heard) == self._processes - 1:
                    return
                time.sleep(self._interval / 20)

    def _read(self, hear: Callable[[int, str], None]) -> None:
        heard = {self.process}
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the coordinator has ended
            while not self._closed.wait(self._interval):
                for key, message in self._store.key_value_dir_get(f"{self._name}/said/"):
                    process = int(key.rpartition("/")[2])
                    if process not in heard:
                        heard.add(process)
                        hear(process, message)
                        self._store.key_value_set(
                            f"{self._name}/heard/{process}/{self.process}", ""
                        )
