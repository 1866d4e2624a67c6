"""The processes of a run: joining, agreeing, sharing work, and ending.

A process that cannot go on ends by itself (`leave`). The others notice it in their next reduction
(`lost_process`), or jax's coordination service ends them when its heartbeat is missing.
"""

import contextlib
import json
import logging
import math
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from resnet_jax.errors import InputError

T = TypeVar("T")
Tree = TypeVar("Tree", bound=PyTree)

_LONGEST_REFUSAL = 2000  # bytes
_CHUNK = 2**24  # bytes sent at a time; of 64 MB one takes three times as long on CPUs
_SAY_EVERY = 10.0  # seconds
_LATER = 60  # seconds by which jax gives up later than this module
_OF_THIS_PROCESS = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")


class JoinError(RuntimeError):
    """Not all processes of the run have come."""

    exit_status = 75  # EX_TEMPFAIL: start me again


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_timeout: int = 10,
    join_timeout: int = 300,
    shutdown_timeout: int = 60,
) -> None:
    """Joins the processes of a run; has to be called before anything else of jax.

    Without an address (host and port of process 0) jax finds them by itself on Cloud TPU, SLURM,
    Open MPI and Kubernetes. A process without a sign of life for `heartbeat_timeout` seconds counts
    as dead, and jax ends the others; the other times bound the wait for the others to start, of
    which a line tells every 10 seconds, and to end.

    Raises:
      InputError: The address or the numbers are wrong, or jax does not find them.
      JoinError: Not all processes have come in time. This one has to end, or jax aborts it.
    """
    if coordinator_address is not None and not re.fullmatch(r".+:\d+", coordinator_address):
        raise InputError(f"the coordinator is {coordinator_address!r}; it must be HOST:PORT")
    joined: futures.Future[None] = futures.Future()

    def join() -> None:
        try:
            jax.distributed.initialize(
                coordinator_address,
                num_processes,
                process_id,
                heartbeat_timeout_seconds=heartbeat_timeout,
                initialization_timeout=join_timeout + _LATER,
                shutdown_timeout_seconds=shutdown_timeout,
            )
        except BaseException as error:
            joined.set_exception(error)
        else:
            joined.set_result(None)

    # In a thread: jax does not say that it waits, nor does it hear Ctrl-C, and then it aborts.
    threading.Thread(target=join, name="join", daemon=True).start()
    begin, left = time.monotonic(), float(join_timeout)
    while futures.wait([joined], min(_SAY_EVERY, left)).not_done:
        left = begin + join_timeout - time.monotonic()
        missing = _missing(coordinator_address, num_processes, process_id)
        if left <= 0:
            raise JoinError(f"{missing} after {join_timeout} s (--join_timeout); start all again")
        print(f"{missing}; waiting, {left:.0f} of {join_timeout} s are left", file=sys.stderr)
    try:
        joined.result()
    except ValueError as error:
        raise InputError(
            f"the other processes are not known: {error}; give --coordinator HOST:PORT, "
            "--num_processes N and --process_id I"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        first = str(error).partition("\n")[0]
        raise JoinError(f"the processes cannot be joined ({first}); start all again") from error


def _missing(address: str | None, count: int | None, process: int | None) -> str:
    """Returns what this process knows of those that it waits for."""
    there = _connections()
    if address is None or count is None or process is None:
        return f"not all processes have come{f', {there} are here' if there else ''}"
    if process == 0:
        return f"process 0: {there or 'not all'} of {count} processes have come to {address}"
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError as error:
        return f"process {process}: process 0 does not answer at {address} ({error})"
    return f"process {process}: process 0 is at {address}, but not all {count} processes have come"


def _connections() -> int:
    """Returns how many processes, this one too, are connected with jax's service in this process.

    It is 0 on the other processes, and on systems other than Linux.
    """
    if not os.path.isdir("/proc/self/fd"):
        return 0
    open_files, sockets = set(), []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since, as that of the listing
            open_files.add(os.readlink(f"/proc/self/fd/{name}"))
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{table}") as file:
            sockets += [line.split() for line in file.read().splitlines()[1:]]
    # Columns: number, local, remote, state, ..., the tenth an inode.
    ports = [(row[1].rpartition(":")[2], row[3], f"socket:[{row[9]}]") for row in sockets]
    listening = {port for port, state, file in ports if state == "0A" and file in open_files}
    return sum(port in listening for port, state, _ in ports if state == "01")


def is_joined() -> bool:
    """Returns whether this process has joined others by `initialize`."""
    return jax.distributed.is_initialized()


def process_index() -> int:
    """Returns the number of this process, which names the files that each writes for itself."""
    return jax.process_index()


def process_name() -> str:
    """Returns how messages name this process."""
    return "the run" if is_alone() else f"process {jax.process_index()}"


def all_processes() -> set[int]:
    """Returns the numbers of all processes."""
    return set(range(jax.process_count()))


def is_alone() -> bool:
    """Returns whether there is only one process."""
    return jax.process_count() == 1


def is_primary() -> bool:
    """Returns whether this is the process that writes logs and reports."""
    return jax.process_index() == 0


@contextlib.contextmanager
def agree_on_input() -> Iterator[None]:
    """Raises on every process, at the end, the `InputError` that one raises inside.

    All processes have to get here, before the first step. Inside they may wait for one another only
    in this function again, and in `once` and `total`, which begin with it: where one has left with
    its error, all the others meet it. An error of another kind is raised at once, and ends this
    process alone.

    Raises:
      InputError: Of the first process that refuses its input; elsewhere with that one's number.
    """
    refusal = None
    try:
        yield
    except InputError as error:
        if error.on_all_processes:  # agreed upon inside
            raise
        refusal = error
    if is_alone():
        if refusal is not None:
            raise refusal
        return
    text = str(refusal or "").encode()[:_LONGEST_REFUSAL].ljust(_LONGEST_REFUSAL, b"\0")
    rows = np.asarray(multihost_utils.process_allgather(np.frombuffer(text, np.uint8)))
    refusing = [process for process, row in enumerate(rows) if row.any()]
    if not refusing:
        return
    if refusal is None:
        message = rows[refusing[0]].tobytes().rstrip(b"\0").decode(errors="replace")
        refusal = InputError(f"{message} (process {refusing[0]})")
    refusal.on_all_processes = True
    raise refusal


def once(make: Callable[[], T]) -> T:
    """Returns on every process what `make` returns on the primary one, which alone calls it.

    All processes have to call it. The value is of JSON's types.

    Raises:
      InputError: Of `make`, on every process.
    """
    value = None
    with agree_on_input():
        if is_primary():
            value = make()
            if is_alone():
                return value
    return json.loads(_send(json.dumps(value).encode()))


def broadcast(tree: Tree, shapes: Tree) -> Tree:
    """Returns the primary process's tree of numpy arrays on every process.

    All processes have to call it.

    Args:
      tree: The arrays; of the primary process.
      shapes: The same tree on all processes, of anything with a shape and a type.
    """
    if is_alone():
        return tree
    if is_primary():
        _send(b"".join(leaf.tobytes() for leaf in jax.tree.leaves(tree)))
        return tree
    received, at = _send(b""), 0

    def take(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        nonlocal at
        array = np.frombuffer(received, leaf.dtype, math.prod(leaf.shape), at)
        at += array.nbytes
        return array.reshape(leaf.shape).copy()  # aligned

    return jax.tree.map(take, shapes)


def total(examples: int, of: Callable[[range], np.ndarray]) -> np.ndarray:
    """Returns the sum of `of(share(examples))` over all processes, on each of them.

    All processes have to call it.

    Raises:
      InputError: Of `of`, on every process.
    """
    with agree_on_input():
        part = of(share(examples))
    if is_alone():
        return part
    # As bytes: jax would make 32 bits of 64.
    rows = np.asarray(multihost_utils.process_allgather(part.reshape(-1).view(np.uint8)))
    return rows.view(part.dtype).sum(axis=0).reshape(part.shape)


def _send(content: bytes) -> bytearray:
    """Returns the primary process's bytes on every process."""
    source = np.frombuffer(content, np.uint8)
    size = np.array([len(source)]).view(np.uint8)
    size = int(np.asarray(multihost_utils.broadcast_one_to_all(size)).view(np.int64)[0])
    received = bytearray()
    while (begin := len(received)) < size:
        length = min(_CHUNK, size - begin)
        part = source[begin : begin + length] if is_primary() else np.zeros(length, np.uint8)
        received += np.asarray(multihost_utils.broadcast_one_to_all(part)).data
    return received


def share(examples: int) -> range:
    """Returns the consecutive examples that are this process's share of a number of them."""
    equal = -(-examples // jax.process_count())
    first = min(jax.process_index() * equal, examples)
    return range(first, min(first + equal, examples))


def gather(rows: np.ndarray, examples: int) -> np.ndarray:
    """Returns on every process the rows of all of them, in the order of the examples.

    All processes have to call it.

    Args:
      rows: A row for each example of this process's `share`; of a type of at most 32 bits, and of
        the same other axes on all processes.
      examples: The number that `share` was given.
    """
    if is_alone():
        return rows
    padding = -(-examples // jax.process_count()) - len(rows)
    padded = np.pad(rows, [(0, padding), *[(0, 0)] * (rows.ndim - 1)])
    return np.asarray(multihost_utils.process_allgather(padded, tiled=True))[:examples]


def preemption_sync() -> Callable[[int], bool] | None:
    """Returns the function by which all processes learn at the same step that one has to stop.

    It takes the step, and is None for a single process.
    """
    return None if is_alone() else multihost_utils.reached_preemption_sync_point


def lost_process(error: BaseException) -> bool:
    """Returns whether an error says that another process has ended during a collective."""
    cause = error.__cause__ or error  # orbax raises a TimeoutError from it
    return (
        isinstance(cause, jax.errors.JaxRuntimeError)
        and is_joined()
        and not str(cause).startswith(_OF_THIS_PROCESS)
    )


def patience(error: BaseException | None) -> float | None:
    """Returns how many seconds to wait for work under way, such as a save; None for no limit.

    Args:
      error: The error that ends this process, if any. Of several, the others may be needed for the
        work: they still go on, unless one of them is lost.
    """
    if is_alone() or error is None or getattr(error, "on_all_processes", False):
        return None
    return 0 if lost_process(error) else 10


def leave(status: int, *, on_all: bool = False) -> NoReturn:
    """Ends this process with an exit status.

    One of several ends at once, after flushing streams and logs: an ordinary end would wait for
    the others in jax's shutdown, and become a SIGABRT.

    Args:
      status: The exit status.
      on_all: All processes end now; they wait for one another.
    """
    if on_all or not is_joined():
        sys.exit(status)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
