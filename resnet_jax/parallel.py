"""Replicas and processes: the only place that knows how many there are.

A *replica* is one device with a whole copy of the state; it sees an equal share of every global
batch. A *process* drives some of them: one on a laptop, one a host on a pod.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import ArrayLike, PyTree

from resnet_jax.board import Board
from resnet_jax.errors import InputError, retold, told, unknown

AXIS = "replicas"
"""Name of the mapped axis, for the collectives of the functions that `Replicas.map` maps."""

_LONGEST_MESSAGE = 2000  # bytes

Mapping = Literal["pmap", "shard_map"]
Tree = TypeVar("Tree", bound=PyTree)


class Replicas:
    """All replicas of a run, in the order of the rows of the global batch.

    Attributes:
      count: Number of replicas, over all processes.
    """

    def __init__(
        self, mapping: Mapping = "pmap", *, devices: Sequence[jax.Device] | None = None
    ) -> None:
        """Takes the devices as replicas.

        Args:
          mapping: How a function of one replica is mapped over all: `jax.pmap` or `jax.shard_map`;
            the numbers are the same.
          devices: The devices; all of them by default.

        Raises:
          InputError: There is no such mapping.
        """
        if mapping not in get_args(Mapping):
            raise unknown("mapping of replicas (config.parallel)", mapping, get_args(Mapping))
        self._mapping = mapping
        # A pod may number its devices in another order; rows go to processes as whole slices.
        self._devices = sorted(
            jax.devices() if devices is None else devices, key=lambda d: (d.process_index, d.id)
        )
        self._local = [d for d in self._devices if d.process_index == jax.process_index()]
        self.count = len(self._devices)
        everyone = Mesh(np.asarray(self._devices), (AXIS,))
        here = Mesh(np.asarray(self._local), (AXIS,))
        # pmap takes and returns arrays that know the devices of their own process only.
        self._mesh = here if mapping == "pmap" else everyone
        self._replicated_here = NamedSharding(here, PartitionSpec())
        self._replicated_globally = NamedSharding(everyone, PartitionSpec())

    def __repr__(self) -> str:
        kind = self._devices[0].device_kind
        processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
        return f"{self.count} x {kind} ({self._mapping}){processes}"

    def rows(self, batch_size: int) -> slice:
        """Returns the rows of the global batch that this process has to read.

        Raises:
          InputError: The batch cannot be divided equally.
        """
        share, rest = divmod(batch_size, self.count)
        if rest or share < 1:
            raise InputError(
                f"a batch of {batch_size} does not divide over {self.count} devices; "
                f"take a multiple of {self.count}, such as {max(share, 1) * self.count}"
            )
        first = self._devices.index(self._local[0]) * share
        return slice(first, first + len(self._local) * share)

    def round_up(self, batch_size: int) -> int:
        """Returns the least batch size from this one up that divides over the replicas."""
        return -(-batch_size // self.count) * self.count

    def here(self) -> "Replicas":
        """Returns the replicas of this process alone, for work without the other processes."""
        return Replicas(self._mapping, devices=self._local)

    def place(self, tree: Tree) -> Tree:
        """Returns a copy of `tree` on every replica, of which nothing is shared with the original.

        The tree may be on the host, on other devices, or whole on all processes (`as_global`).
        State has to be placed before the first step: elsewhere, the second call of the step would
        compile again. And it has to be a copy: the step is free to overwrite it.
        """

        def own(x: ArrayLike) -> ArrayLike:
            if isinstance(x, jax.Array) and not x.is_fully_addressable:
                return x.addressable_data(0)
            return x

        # device_put moves from any device, but may hand out the original's memory.
        moved = jax.device_put(jax.tree.map(own, tree), self._replicated_here)
        copies = jax.jit(lambda t: jax.tree.map(jnp.copy, t), out_shardings=self._replicated_here)(
            moved
        )
        return copies if self._mapping == "pmap" else self.as_global(copies)

    def as_global(self, tree: Tree) -> Tree:
        """Returns a placed tree as arrays that span all processes, as checkpoints need them.

        They share their memory with the placed ones.
        """

        def convert(x: jax.Array) -> jax.Array:
            if x.sharding == self._replicated_globally:
                return x
            shards = [shard.data for shard in x.addressable_shards]
            return jax.make_array_from_single_device_arrays(
                x.shape, self._replicated_globally, shards
            )

        return jax.tree.map(convert, tree)

    def shard(self, batch: PyTree) -> PyTree:
        """Sends this process's rows of a batch to its replicas, without waiting for it."""
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        if self._mapping == "pmap":
            local = len(self._local)
            return jax.device_put(
                jax.tree.map(lambda x: x.reshape(local, -1, *x.shape[1:]), batch), sharding
            )
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)

    def shard_shapes(self, shapes: PyTree) -> PyTree:
        """Returns what `shard` makes of arrays of these shapes, as shapes.

        Args:
          shapes: `jax.ShapeDtypeStruct`s of whole global batches.
        """

        def sharded(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            if self._mapping == "shard_map":
                return x
            local = len(self._local)
            share = x.shape[0] // self.count
            return jax.ShapeDtypeStruct((local, share, *x.shape[1:]), x.dtype)

        return jax.tree.map(sharded, shapes)

    def map(self, function: Callable, *, donate: bool = False) -> Callable:
        """Maps a function of one replica over all of them, and compiles it.

        Args:
          function: `(tree, batch) -> outputs`. The tree is what every replica has whole, the batch
            is the replica's share. The outputs have to be equal on all replicas: what differs goes
            through a collective over `AXIS` first.
          donate: Whether the tree's memory may be used for the outputs; it is lost to the caller.

        Returns:
          A function of a placed tree and a sharded batch.
        """
        donated = (0,) if donate else ()
        if self._mapping == "pmap":
            return jax.pmap(
                function,
                axis_name=AXIS,
                in_axes=(None, 0),
                out_axes=None,
                devices=self._devices,
                donate_argnums=donated,
            )
        # With check_vma=True the gradient of a replicated tree is summed over the replicas by
        # itself, and averaging it once more, as under pmap, would make it `count` times too large.
        return jax.jit(
            jax.shard_map(
                function,
                mesh=self._mesh,
                in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
                out_specs=PartitionSpec(),
                check_vma=False,
            ),
            donate_argnums=donated,
        )


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes of a run; to be called before anything else of jax.

    Without arguments jax finds them by itself on Cloud TPU, SLURM, Open MPI and Kubernetes.

    Args:
      coordinator_address: Host and port of process 0.
      num_processes: Number of processes.
      process_id: Number of this one.
    """
    jax.distributed.initialize(coordinator_address, num_processes, process_id)


def process_index() -> int:
    """Returns the number of this process, to name what each writes for itself."""
    return jax.process_index()


def is_alone() -> bool:
    """Whether there is no other process."""
    return jax.process_count() == 1


def is_primary() -> bool:
    """Whether this is the process that writes logs and reports."""
    return jax.process_index() == 0


def agree(number: int) -> int:
    """Returns the primary process's number on every process."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def share(examples: int) -> range:
    """Returns this process's share of what each process does alone: consecutive examples."""
    equal = -(-examples // jax.process_count())
    first = min(jax.process_index() * equal, examples)
    return range(first, min(first + equal, examples))


def gather(rows: np.ndarray, examples: int) -> np.ndarray:
    """Returns on every process the rows of all of them, in the order of the examples.

    All processes have to call it.

    Args:
      rows: What this process found, a row for each example of its `share`; of a type of at most 32
        bits, and of the same other axes on all processes.
      examples: What `share` was given.
    """
    if jax.process_count() == 1:
        return rows
    padding = -(-examples // jax.process_count()) - len(rows)
    padded = np.pad(rows, [(0, padding), *[(0, 0)] * (rows.ndim - 1)])
    return np.asarray(multihost_utils.process_allgather(padded, tiled=True))[:examples]


def raise_together(error: Exception | None) -> None:
    """Raises on every process what has gone wrong on one; all processes have to call it.

    Else the others would wait in vain for the one that has ended.

    Raises:
      Exception: The error of the first process that has one: itself there, and elsewhere an
        `InputError` or `ProcessError` with its message and the process.
    """
    if jax.process_count() == 1:
        if error is not None:
            raise error
        return
    text = b"" if error is None else told(error).encode(errors="replace")[:_LONGEST_MESSAGE]
    mine = np.frombuffer(text.ljust(_LONGEST_MESSAGE, b"\0"), np.uint8)
    for process, row in enumerate(np.asarray(multihost_utils.process_allgather(mine))):
        if error is not None and process == jax.process_index():
            raise error
        if row.any():
            text = row.tobytes().rstrip(b"\0").decode(errors="replace")
            raise retold(text, process) from error


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Raises on every process, at the end, what goes wrong inside on one.

    All processes have to come here, and none may wait for another one inside.

    Raises:
      Exception: See `raise_together`.
    """
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    raise_together(error)


def board() -> Board | None:
    """Returns what the processes can leave messages on, or None where there is only one.

    All processes have to call it.
    """
    if jax.process_count() == 1:
        return None
    try:
        from jax._src import distributed
    except ImportError:  # the store of jax's coordinator has no public name, and may move
        return None
    store = distributed.global_state.client
    if store is None:
        return None
    number = agree(secrets.randbits(31))  # no messages of another run of the same processes
    return Board(
        store,
        f"resnet_jax/{number}",
        process=jax.process_index(),
        processes=jax.process_count(),
    )


def preemption_sync() -> Callable[[int], bool] | None:
    """Returns the function by which all processes learn at the same step that one is to stop.

    It takes the step, and is `None` where there is only one process.
    """
    if jax.process_count() == 1:
        return None
    return multihost_utils.reached_preemption_sync_point
