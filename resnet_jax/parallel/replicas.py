"""Functions of one replica, mapped over all devices by `jax.pmap` or `jax.shard_map`."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import ArrayLike, PyTree

from resnet_jax.errors import InputError, unknown

AXIS = "replicas"
"""Name of the mapped axis, for the collectives of the functions that `Replicas.map` maps."""

MapName = Literal["pmap", "shard_map"]
CompilerOptions = Mapping[str, bool | str]
Tree = TypeVar("Tree", bound=PyTree)


class MappedFunction:
    """A function of one replica, mapped over all: `(placed tree, sharded batch) -> outputs`.

    With options of the compiler it is compiled ahead, as `jax.pmap` takes none, once for each shape
    of the batch; the tree has to keep its shapes.
    """

    def __init__(self, mapped: jax.stages.Wrapped, options: CompilerOptions) -> None:
        self._mapped = mapped
        self._options = {name: v for name, v in options.items() if _has_option(name, v)}
        self._compiled: dict[tuple[object, ...], jax.stages.Compiled] = {}

    def __call__(self, tree: PyTree, batch: PyTree) -> PyTree:
        """Runs it."""
        leaves = jax.tree.leaves(batch)
        if not self._options or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self._mapped(tree, batch)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if shapes not in self._compiled:
            self._compiled[shapes] = self.compile(tree, batch)
        return self._compiled[shapes](tree, batch)

    def compile(self, tree: PyTree, batch: PyTree) -> jax.stages.Compiled:
        """Returns the program for arguments of these shapes."""
        return self._mapped.lower(tree, batch).compile(compiler_options=self._options)


@functools.cache
def _has_option(name: str, value: bool | str) -> bool:
    """Returns whether this version of XLA has an option of the compiler."""
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


class Replicas:
    """All replicas of a run, in the order of the rows of the global batch.

    Attributes:
      count: Number of replicas, over all processes.
    """

    def __init__(
        self,
        mapping: MapName = "pmap",
        *,
        devices: Sequence[jax.Device] | None = None,
        compiler_options: CompilerOptions | None = None,
    ) -> None:
        """Takes the devices as replicas.

        Args:
          mapping: How a function of one replica is mapped over all: `jax.pmap` or `jax.shard_map`;
            the numbers are the same.
          devices: The devices; all of them by default.
          compiler_options: Options of XLA for the programs of `map`; those that this version does
            not have are left out.

        Raises:
          InputError: There is no such mapping.
        """
        if mapping not in get_args(MapName):
            raise unknown("mapping of replicas (config.parallel)", mapping, get_args(MapName))
        self._mapping = mapping
        self._options = compiler_options or {}
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
        # One function for all calls of `place`: a new one would compile each time.
        self._copy = jax.jit(
            lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=self._replicated_here
        )

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
        return Replicas(self._mapping, devices=self._local, compiler_options=self._options)

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
        copies = self._copy(jax.device_put(jax.tree.map(own, tree), self._replicated_here))
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

    def map(self, function: Callable, *, donate: bool = False) -> MappedFunction:
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
            mapped = jax.pmap(
                function,
                axis_name=AXIS,
                in_axes=(None, 0),
                out_axes=None,
                devices=self._devices,
                donate_argnums=donated,
            )
            # Compiled ahead, it would take the arrays of all processes.
            alone = len(self._local) == self.count
            return MappedFunction(mapped, self._options if alone else {})
        # With check_vma=True the gradient of a replicated tree is summed over the replicas by
        # itself, and averaging it once more, as under pmap, would make it `count` times too large.
        mapped = jax.jit(
            jax.shard_map(
                function,
                mesh=self._mesh,
                in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
                out_specs=PartitionSpec(),
                check_vma=False,
            ),
            donate_argnums=donated,
        )
        return MappedFunction(mapped, self._options)
