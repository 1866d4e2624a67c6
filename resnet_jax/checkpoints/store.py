"""Checkpoints: saved while training goes on, verified when restored, set aside when damaged.

```
checkpoints/40/                 a step: what orbax wrote, and manifest.json, written last
checkpoints/50.orbax-checkpoint-tmp/    being written; removed by the next one to open the folder
checkpoints/set_aside/30-1/     was damaged or unfinished; kept for a person to look at
checkpoints/removing/           being deleted; removed by the next one to open the folder
```

A folder is moved before it is deleted or replaced, so that a process killed at any moment leaves
either a whole checkpoint or none. Object stores (`gs://`) cannot move a folder at once: a process
killed there in the midst of it leaves one whose files do not match its manifest, which is noticed
when it is restored like any other damage.
"""

import itertools
import json
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Literal, NamedTuple, Self, TypeAlias

import jax
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

from resnet_jax.checkpoints import manifest as manifests
from resnet_jax.checkpoints.manifest import Flaw, Manifest
from resnet_jax.errors import InputError, unknown

JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None

_METADATA = "metadata"
_SET_ASIDE = "set_aside"
_REMOVING = "removing"
_TEMPORARY = ocp.path.atomicity_types.TMP_DIR_SUFFIX
_NONE, _REFUSED = -1, -2  # what the primary process broadcasts in place of a step


class Checkpoint(NamedTuple):
    """A restored checkpoint.

    Attributes:
      step: The step after which it was saved.
      items: The trees that were asked for, by name.
      metadata: What was saved beside them, lists for tuples.
    """

    step: int
    items: dict[str, PyTree]
    metadata: Mapping[str, JSON]


class Checkpoints:
    """The checkpoints of a run: a context manager that waits for the last save when it is left.

    The newest `keep_newest` are kept, and of all those with a metric the `keep_best` with the
    lowest. A checkpoint counts, and others are deleted for it, only once its manifest is written.

    With several processes each one makes the same calls in the same order, on one shared file
    system; only the primary one verifies, moves, deletes and speaks. While an object of this class
    is open, what orbax logs about its own work is not shown: what went wrong is raised.

    Args:
      directory: Where they are, `gs://` included; made if need be, unless read only.
      keep_newest: How many of the newest are kept, at least 1.
      keep_best: How many with the lowest metric are kept besides.
      writable: False for one who reads beside a training run: nothing on the disk is changed.
      say: Told in one line what was wrong with which checkpoint, and what is used instead.
      primary: Whether this is the process that `agree` listens to.
      agree: Returns the primary process's value in every process; called by all of them.

    Raises:
      InputError: A number to keep is too small.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        keep_newest: int = 3,
        keep_best: int = 1,
        writable: bool = True,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
        primary: bool = True,
        agree: Callable[[int], int] = lambda value: value,
    ) -> None:
        if keep_newest < 1 or keep_best < 0:
            raise InputError(
                "keep_newest must be at least 1 and keep_best at least 0, "
                f"not {keep_newest} and {keep_best}"
            )
        # TensorStore wants absolute paths.
        self._directory = epath.Path(directory).expanduser().resolve()
        self._keep_newest, self._keep_best = keep_newest, keep_best
        self._writable = writable
        self._say = say
        self._primary, self._agree = primary, agree
        if writable and primary:
            self._directory.mkdir(parents=True, exist_ok=True)
            for path in self._directory.iterdir():
                if _TEMPORARY in path.name or path.name == _REMOVING:
                    path.rmtree()
        package = str(epath.resource_path("orbax.checkpoint"))
        self._quiet = lambda record: not record.pathname.startswith(package)
        logging.getLogger("absl").addFilter(self._quiet)
        self._checkpointer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self._worker = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: futures.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(
        self,
        step: int,
        items: Mapping[str, PyTree],
        metadata: Mapping[str, object],
        *,
        metric: float | None,
    ) -> None:
        """Saves in the background; returns once the arrays may be donated or overwritten.

        Waits for the save before it, if that is still going on.

        Args:
          step: Later than all that are there.
          items: Trees of arrays (typed random keys too) by name; a name is not "metadata".
          metadata: Whatever else is worth keeping; written as JSON.
          metric: What "best" goes by, lower is better; None or NaN if it was not measured.

        Raises:
          InputError: A checkpoint of this step or of a later one is there.
          ValueError: The checkpoints are read only, or an item is called "metadata".
          TypeError: A leaf is not an array, or the metadata are not JSON.
          Exception: Whatever ended the save before this one.
        """
        if not self._writable:
            raise ValueError(f"the checkpoints in {self._directory} were opened read only")
        if _METADATA in items:
            raise ValueError(f"an item cannot be called {_METADATA!r}")
        self.wait()
        # Written later than this returns, so a copy; and what is no JSON is refused here and now.
        metadata = json.loads(json.dumps(metadata))
        metric = float(metric) if metric is not None and math.isfinite(metric) else None
        contents = {name: manifests.leaves(name, tree) for name, tree in items.items()}
        if self._primary:
            self._make_room(step)
        # orbax refuses a tree without leaves; the manifest remembers that there was one.
        full = {name: tree for name, tree in items.items() if jax.tree.leaves(tree)}
        trees = {name: ocp.args.PyTreeSave(_fetched(tree)) for name, tree in full.items()}
        self._checkpointer.save(
            self._folder(step),
            args=ocp.args.Composite(**trees, **{_METADATA: ocp.args.JsonSave(metadata)}),
        )
        self._pending = self._worker.submit(self._finish, Manifest(step, metric, contents))

    def restore(
        self, which: int | Literal["newest", "best"], templates: Mapping[str, PyTree]
    ) -> Checkpoint | None:
        """Verifies a checkpoint and restores it, the next good one if it is damaged.

        A damaged or unfinished one is set aside (skipped if read only), and said so, unless it was
        asked for by its step.

        Args:
          which: The step; "newest"; or "best", the lowest metric and of equals the newest.
          templates: For each item wanted, its tree with `jax.ShapeDtypeStruct` leaves. A leaf with
            a sharding is restored onto its devices, whatever they were when it was saved; one
            without becomes a numpy array, a typed random key one on the default device.

        Returns:
          The checkpoint; None if there is no good one (for "best": none that has a metric).

        Raises:
          InputError: The step asked for is missing or damaged (says which there are), an item is
            unknown, or a template differs from what was saved (names the first leaf that does).
          Exception: Whatever ended the last save.
        """
        self.wait()
        step = _NONE
        if self._primary:
            try:
                step = self._choose(which)
            except Exception:
                self._agree(_REFUSED)
                raise
        step = self._agree(step)
        if step == _REFUSED:
            raise InputError(f"checkpoint {which!r} was refused; the primary process says why")
        if step == _NONE:
            return None
        try:
            return self._load(step, templates)
        except Exception as error:
            if self._is_complete(step):
                raise
            raise InputError(
                f"checkpoint {step} was deleted while it was being read; try again"
            ) from error

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints that were finished, ascending."""
        return [step for step in manifests.steps(self._directory) if self._is_complete(step)]

    def wait(self) -> None:
        """Waits for the save that is going on, and raises what went wrong with it."""
        if self._pending is not None:
            futures.wait([self._pending])  # if interrupted here, `close` waits again
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Waits like `wait`, then lets go of threads and log filter."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()
            self._checkpointer.close()
            logging.getLogger("absl").removeFilter(self._quiet)

    def _folder(self, step: int) -> epath.Path:
        return self._directory / str(step)

    def _is_complete(self, step: int) -> bool:
        return (self._folder(step) / manifests.FILENAME).exists()

    def _make_room(self, step: int) -> None:
        complete = self.steps()
        if complete and step <= complete[-1]:
            raise InputError(
                f"step {step} cannot be saved: {self._directory} has checkpoint {complete[-1]}"
            )
        if self._folder(step).exists():
            self._report({step: "is unfinished (it has no manifest)"}, "it is saved anew")

    def _finish(self, manifest: Manifest) -> None:
        self._checkpointer.wait_until_finished()
        if not self._primary:
            return
        manifests.write(self._folder(manifest.step), manifest)
        # One that is damaged neither counts nor goes: it is set aside when a run is restored.
        complete, _ = manifests.survey(self._directory)
        kept = [*complete[-self._keep_newest :], *manifests.best_first(complete)[: self._keep_best]]
        for old in complete:
            if old not in kept:
                self._move(old.step, _REMOVING)
                (self._directory / _REMOVING).rmtree()

    def _choose(self, which: int | Literal["newest", "best"]) -> int:
        if isinstance(which, int):
            return self._asked_for(which)
        complete, flaws = manifests.survey(self._directory)
        chosen, outcome = _NONE, "there is no good one"
        for manifest in manifests.best_first(complete) if which == "best" else reversed(complete):
            try:
                manifests.verify(self._folder(manifest.step), manifest.step)
            except Flaw as flaw:
                flaws[manifest.step] = str(flaw)
            else:
                chosen, outcome = manifest.step, f"checkpoint {manifest.step} is used"
                break
        # What is gone by now was deleted by the run that this one reads beside.
        if flaws := {step: flaws[step] for step in flaws if self._folder(step).exists()}:
            self._report(flaws, outcome)
        return chosen

    def _asked_for(self, step: int) -> int:
        folder = self._folder(step)
        try:
            manifests.verify(folder, step)
        except Flaw as flaw:
            wrong = f"checkpoint {step} {flaw}" if folder.exists() else f"no checkpoint {step}"
            others = ", ".join(str(other) for other in self.steps() if other != step)
            raise InputError(f"{wrong} in {self._directory}; there is {others or 'none'}") from flaw
        return step

    def _report(self, flaws: Mapping[int, str], outcome: str) -> None:
        """Moves flawed checkpoints out of the way, if that is allowed, and says so in one line."""
        line = []
        for step, flaw in sorted(flaws.items(), reverse=True):
            done = f"set aside as {self._move(step, _SET_ASIDE)}" if self._writable else "skipped"
            line.append(f"checkpoint {step} {flaw}: {done}")
        self._say("; ".join([*line, outcome]))

    def _move(self, step: int, room: str) -> epath.Path:
        parent = self._directory / room
        parent.mkdir(exist_ok=True)
        targets = (parent / f"{step}-{n}" for n in itertools.count(1))
        target = next(target for target in targets if not target.exists())
        self._folder(step).rename(target)
        return target

    def _load(self, step: int, templates: Mapping[str, PyTree]) -> Checkpoint:
        folder = self._folder(step)
        saved = manifests.read(folder, step).items
        args = {}
        for name, template in templates.items():
            if name not in saved:
                raise unknown(f"item of checkpoint {step}", name, saved)
            manifests.refuse_difference(step, saved[name], manifests.leaves(name, template))
            if jax.tree.leaves(template):
                args[name] = _restore_args(template)
        restored = self._checkpointer.restore(
            folder, args=ocp.args.Composite(**args, **{_METADATA: ocp.args.JsonRestore()})
        )
        items = {name: restored[name] if name in args else templates[name] for name in templates}
        # Once more: jax holds 64-bit types as 32 bits unless told otherwise.
        for name, tree in items.items():
            manifests.refuse_difference(step, saved[name], manifests.leaves(name, tree))
        return Checkpoint(step, items, restored[_METADATA])


def _is_key(leaf: jax.Array | jax.ShapeDtypeStruct) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _fetched(tree: PyTree) -> PyTree:
    """Returns the tree with numpy arrays for what all devices have alike, but for random keys.

    orbax would have each replica write a slice of its own, and compile a program for each slice.
    """
    leaves, structure = jax.tree.flatten(tree)
    alike = {
        at: leaf.addressable_data(0)
        for at, leaf in enumerate(leaves)
        if isinstance(leaf, jax.Array) and leaf.is_fully_replicated and not _is_key(leaf)
    }
    fetched = jax.device_get(alike)
    return structure.unflatten([fetched.get(at, leaf) for at, leaf in enumerate(leaves)])


def _restore_args(template: PyTree) -> ocp.args.PyTreeRestore:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    template = jax.tree.map(
        lambda leaf: leaf.update(sharding=leaf.sharding or device) if _is_key(leaf) else leaf,
        template,
    )
    # With StandardRestore a leaf without sharding would go to the devices it was saved from.
    return ocp.args.PyTreeRestore(
        item=template, restore_args=ocp.checkpoint_utils.construct_restore_args(template)
    )
