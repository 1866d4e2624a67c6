"""Checkpoints: saved while training goes on, verified when restored, set aside when damaged.

```
checkpoints/40/                 a step: the files of orbax, and manifest.json, written last
checkpoints/metric-40.json      what an evaluation has measured since
checkpoints/newest.json         the newest step that was finished, written after its manifest
checkpoints/50.orbax-checkpoint-tmp/    being written; removed by the next one to open the folder
checkpoints/set_aside/30-1/     damaged, unfinished or not to be read; for a person to look at
checkpoints/removing/           being deleted; removed by the next one to open the folder
```

A folder is moved before it is deleted or replaced, so that a process killed at any moment leaves
a whole checkpoint or none. Object stores (`gs://`) cannot move a folder at once: a process killed
in the middle of it leaves a checkpoint that differs from its manifest, and so is damaged.
"""

import contextlib
import itertools
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Literal, NamedTuple, Self

import jax
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

from resnet_jax import parallel
from resnet_jax.checkpoints import leaves
from resnet_jax.checkpoints import manifest as manifests
from resnet_jax.checkpoints.manifest import Evaluation, Flaw, finished_steps
from resnet_jax.checkpoints.workdir import Json
from resnet_jax.errors import InputError, unknown
from resnet_jax.files import named, write_atomically

_METADATA = "metadata"
_NEWEST = "newest.json"
_SET_ASIDE = "set_aside"
_REMOVING = "removing"
_TEMPORARY = ocp.path.atomicity_types.TMP_DIR_SUFFIX
_NONE = -1  # in place of a step
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")  # in the texts of TensorStore's errors
_MOST_SET_ASIDE = 5  # checkpoints; of more, the oldest are deleted


class Checkpoint(NamedTuple):
    """A restored checkpoint: its step, the trees asked for by name, and the JSON beside them.

    `evaluation` is what `Checkpoints.mark` was given, or the metric that it was saved with.
    """

    step: int
    items: dict[str, PyTree]
    metadata: dict[str, Json]
    evaluation: Evaluation | None


class Checkpoints:
    """The checkpoints of a run: a context manager that waits for the last save when it is left.

    The newest `keep_newest` are kept, and of all those with a metric the `keep_best` with the
    lowest. A checkpoint counts, and others are deleted for it, only once its manifest is written.

    With several processes each one makes the same calls in the same order, on one shared file
    system; only the primary one verifies, reads, moves, deletes and logs, and sends what it has
    read to the others. While an object of this class is open, and after a failed save, orbax's own
    log messages are dropped: its errors are raised.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        keep_newest: int = 3,
        keep_best: int = 1,
        writable: bool = True,
        log: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        """Opens the folder; if writable, makes it and removes what a killed process left.

        Args:
          directory: The folder, `gs://` included.
          keep_newest: How many of the newest are kept, at least 1.
          keep_best: How many with the lowest metric are kept besides.
          writable: False to read beside a training run: nothing on the disk is changed.
          log: Takes a line on the flaws of checkpoints, and on the one used instead; and on one
            that cannot be deleted.
        """
        # TensorStore wants absolute paths.
        self._directory = epath.Path(directory).expanduser().resolve()
        self._keep_newest, self._keep_best = keep_newest, keep_best
        self._writable = writable
        self._log = log
        if writable and parallel.is_primary():
            self._directory.mkdir(parents=True, exist_ok=True)
            for name in manifests.names(self._directory):
                if _TEMPORARY in name or name == _REMOVING:
                    with self._may_stay(self._directory / name):
                        (self._directory / name).rmtree()
        package = str(epath.resource_path("orbax.checkpoint"))
        self._quiet = lambda record: not record.pathname.startswith(package)
        logging.getLogger("absl").addFilter(self._quiet)
        # Otherwise its threads wait for folders that a failed save has not made, for 20 minutes.
        at_once = ocp.options.AsyncOptions(create_directories_asynchronously=False)
        # Named one by one, they wait for each other without a program on the devices, of which a
        # thread must not send one between those of the loop.
        processes = ocp.options.MultiprocessingOptions(active_processes=parallel.all_processes())
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(
                composite_options=ocp.CompositeOptions(
                    async_options=at_once, multiprocessing_options=processes
                )
            ),
            async_options=at_once,
            multiprocessing_options=processes,
        )
        self._worker = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: futures.Future[None] | None = None
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        seconds = parallel.patience(error)
        if seconds is None:
            self.close()
        elif self._pending is not None:  # the process ends in any case
            futures.wait([self._pending], seconds)

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
          items: Trees of arrays by name, other than "metadata".
          metadata: Anything else worth keeping; written as JSON.
          metric: The measure of "best", lower is better; None or NaN if it was not measured yet.

        Raises:
          InputError: A checkpoint of this step or of a later one is there.
          ValueError: The checkpoints are read only.
          TypeError: A leaf is not an array, or the metadata are not JSON.
          Exception: The error of the save before this one.
        """
        if not self._writable:
            raise ValueError(f"the checkpoints in {self._directory} were opened read only")
        self.wait()
        # Copies, as they are written after this returns; and what is not JSON is refused now.
        metadata = json.loads(json.dumps(metadata))
        metric = float(metric) if metric is not None and math.isfinite(metric) else None
        described = {name: leaves.describe(name, tree) for name, tree in items.items()}
        if parallel.is_primary():
            self._make_room(step)
        trees = {
            name: ocp.args.PyTreeSave(leaves.copy(tree))
            for name, tree in items.items()
            if jax.tree.leaves(tree)  # orbax refuses a tree without; the manifest has it
        }
        args = ocp.args.Composite(**trees, **{_METADATA: ocp.args.JsonSave(metadata)})
        self._pending = self._worker.submit(self._finish, step, args, metric, described)

    def mark(self, step: int, evaluation: Evaluation) -> None:
        """Adds an evaluation to a checkpoint, in the background, once its save is finished."""
        self._pending = self._worker.submit(self._mark, self._pending, step, evaluation)

    def restore(
        self,
        which: int | Literal["newest", "best"],
        templates: Mapping[str, PyTree],
        *,
        begin_anew: bool = False,
    ) -> Checkpoint | None:
        """Verifies a checkpoint and restores it, the next good one if it is damaged.

        One that is damaged, unfinished or without permission to read is set aside (skipped if read
        only) with a line in the log, unless it was asked for by its step; the newest of those set
        aside are kept. Another error of reading moves nothing.

        Args:
          which: The step; "newest"; or "best", the lowest metric and of equals the newest.
          templates: For each item wanted, its tree with `jax.ShapeDtypeStruct` leaves. A leaf with
            a sharding is restored onto its devices, whatever they were when it was saved; one
            without becomes a numpy array. `leaves.LATER` ones may be missing.
          begin_anew: Whether to set all aside where one was finished and none good is left.

        Returns:
          The checkpoint; None if there is no good one (for "best": none that has a metric).

        Raises:
          InputError: The step asked for is missing or damaged; "newest", writable, when one was
            finished and none good is left; an item is unknown; a template differs from what was
            saved (names the first leaf that does).
          OSError: A file cannot be read; nothing was moved.
          Exception: The error of the last save.
        """
        self.wait()
        items: dict[str, PyTree] = {}

        def read() -> tuple[int, dict[str, Json], Evaluation | None] | None:
            step = self._choose(which, begin_anew)
            if step == _NONE:
                return None
            try:
                loaded = self._load(step, templates)
            except Exception as error:
                if manifests.is_finished(self._folder(step)):
                    raise
                raise InputError(
                    f"checkpoint {step} was deleted while it was being read; try again"
                ) from error
            items.update(loaded.items)
            return step, loaded.metadata, loaded.evaluation

        if (found := parallel.once(read)) is None:
            return None
        step, metadata, evaluation = found
        items = leaves.place(step, parallel.broadcast(items, templates), templates)
        return Checkpoint(step, items, metadata, evaluation and Evaluation(*evaluation))

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints that were finished, ascending."""
        return finished_steps(self._directory)

    def wait(self) -> None:
        """Waits for the save under way, and raises its error."""
        if self._pending is not None:
            futures.wait([self._pending])  # if interrupted here, `close` waits again
            pending, self._pending = self._pending, None
            with self._placed():
                pending.result()

    def check(self) -> None:
        """Raises the error of a save that has failed; does not wait for one under way."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def close(self) -> None:
        """Waits like `wait`, ends the threads and, unless a save has failed, the log filter."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()
            with self._placed():
                self._checkpointer.close()
            if not self._failed:  # else its threads may repeat the error later
                logging.getLogger("absl").removeFilter(self._quiet)

    def _folder(self, step: int) -> epath.Path:
        return self._directory / str(step)

    def _make_room(self, step: int) -> None:
        finished = self.steps()
        if finished and step <= finished[-1]:
            raise InputError(
                f"step {step} cannot be saved: {self._directory} has checkpoint {finished[-1]}"
            )
        if step in manifests.steps(self._directory):
            self._set_aside({step: "is unfinished (it has no manifest)"}, "it is saved again")
        manifests.evaluation_path(self._folder(step)).unlink(missing_ok=True)  # of one before

    def _finish(
        self,
        step: int,
        args: ocp.args.Composite,
        metric: float | None,
        items: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._checkpointer.save(self._folder(step), args=args)
        self._checkpointer.wait_until_finished()
        if not parallel.is_primary():
            return
        manifests.write(self._folder(step), step, metric, items)
        write_atomically(self._directory / _NEWEST, f"{json.dumps({'step': step})}\n".encode())
        self._prune()

    def _mark(self, save: futures.Future[None] | None, step: int, evaluation: Evaluation) -> None:
        if save is not None:
            save.result()
        if parallel.is_primary():
            manifests.write_evaluation(self._folder(step), step, evaluation)
            self._prune()

    def _prune(self) -> None:
        # A damaged one neither counts nor goes: it is set aside when a run is restored.
        try:
            finished, _ = manifests.survey(self._directory)
        except OSError:
            return  # none goes before all can be read
        for old in manifests.outdated(finished, self._keep_newest, self._keep_best):
            with self._may_stay(self._folder(old.step)):
                delete(self._directory, old.step)

    def _choose(self, which: int | Literal["newest", "best"], begin_anew: bool) -> int:
        if isinstance(which, int):
            return self._verified(which)
        finished, flaws = manifests.survey(self._directory)
        chosen, outcome = _NONE, "there is no good one"
        for manifest in manifests.best_first(finished) if which == "best" else reversed(finished):
            try:
                manifests.verify(self._folder(manifest.step), manifest.step)
            except Flaw as flaw:
                flaws[manifest.step] = str(flaw)
            else:
                chosen, outcome = manifest.step, f"checkpoint {manifest.step} is used"
                break
        # One that is gone by now was deleted by the run that this one reads beside.
        flaws = {step: flaws[step] for step in manifests.steps(self._directory) if step in flaws}
        if self._writable and which == "newest" and chosen == _NONE and not begin_anew:
            self._refuse_to_begin(flaws)
        if flaws:
            self._set_aside(flaws, outcome)
        if self._writable and chosen != _NONE:
            self._prune()  # of a process that was killed between its mark and this
        return chosen

    def _verified(self, step: int) -> int:
        folder = self._folder(step)
        try:
            manifests.verify(folder, step)
        except Flaw as flaw:
            wrong = f"checkpoint {step} {flaw}" if folder.exists() else f"no checkpoint {step}"
            others = ", ".join(str(other) for other in self.steps() if other != step)
            raise InputError(f"{wrong} in {self._directory}; there is {others or 'none'}") from flaw
        return step

    def _refuse_to_begin(self, flaws: Mapping[int, str]) -> None:
        """Refuses to begin where a checkpoint was finished, although none good is left.

        A run that was killed before its first checkpoint was finished begins without asking.
        """
        folders = [*map(self._folder, flaws), *set_aside(self._directory)]
        proofs = [folder for folder in folders if manifests.is_finished(folder)]
        if _NEWEST in manifests.names(self._directory):
            proofs.append(self._directory / _NEWEST)
        if proofs:
            lines = [f"checkpoint {step} {flaw}; " for step, flaw in flaws.items()]
            raise InputError(
                f"no good checkpoint is left in {self._directory}, and {proofs[0]} shows that one "
                f"was finished; {''.join(lines)}put a good one back, or give --begin_anew to train "
                "from the first step"
            )

    def _set_aside(self, flaws: Mapping[int, str], outcome: str) -> None:
        """Moves flawed checkpoints out of the way, if that is allowed, and logs it in one line."""
        line = []
        for step, flaw in sorted(flaws.items(), reverse=True):
            done = f"set aside as {self._put_aside(step)}" if self._writable else "skipped"
            line.append(f"checkpoint {step} {flaw}: {done}")
        self._log("; ".join([*line, outcome]))
        if self._writable:
            paths = set_aside(self._directory)
            for path in paths[: -max(_MOST_SET_ASIDE, len(flaws))]:
                with self._may_stay(path):
                    path.rmtree()

    def _put_aside(self, step: int) -> epath.Path:
        try:
            return _move(self._directory, step, _SET_ASIDE)
        except PermissionError:  # another user's folder keeps its parent, but not its name
            return self._folder(step).rename(self._directory / f"{_SET_ASIDE}-{step}")

    @contextlib.contextmanager
    def _placed(self) -> Iterator[None]:
        """Raises errors of the operating system as such, TensorStore's too, and with a path."""
        with named(self._directory):
            try:
                yield
            except Exception as error:
                self._failed = True
                if not isinstance(error, ValueError) or not (code := _OS_ERROR.search(str(error))):
                    raise
                raise OSError(int(code[1]), os.strerror(int(code[1]))) from error

    @contextlib.contextmanager
    def _may_stay(self, path: epath.Path) -> Iterator[None]:
        """Lets the run go on, with a line, where a folder cannot be deleted."""
        try:
            yield
        except OSError as error:
            self._log(f"{path} cannot be deleted ({error.strerror or error}); the run goes on")

    def _load(self, step: int, templates: Mapping[str, PyTree]) -> Checkpoint:
        """Reads a checkpoint, all leaves to numpy arrays."""
        folder = self._folder(step)
        _, metric, saved, _ = manifests.read(folder, step)
        args, later = {}, {}
        for name, template in templates.items():
            if name not in saved:
                raise unknown(f"item of checkpoint {step}", name, saved)
            here = leaves.describe(name, template)
            leaves.refuse_difference(step, saved[name], here)
            later[name] = here.keys() - saved[name].keys()
            if jax.tree.leaves(template):
                # With StandardRestore a leaf without sharding goes to the devices it came from.
                item = leaves.without(later[name], leaves.on_host(template))
                to = ocp.checkpoint_utils.construct_restore_args(item)
                args[name] = ocp.args.PyTreeRestore(item=item, restore_args=to)
        # Not by the checkpointer, which would wait for the other processes.
        restored = ocp.CompositeCheckpointHandler().restore(
            folder, args=ocp.args.Composite(**args, **{_METADATA: ocp.args.JsonRestore()})
        )
        items = {name: restored[name] if name in args else templates[name] for name in templates}
        for name, tree in items.items():
            leaves.fill(later[name], tree)
        evaluation = None if metric is None else Evaluation(metric)
        try:
            evaluation = manifests.read_evaluation(folder, step) or evaluation
        except Flaw as flaw:
            self._log(f"the evaluation of checkpoint {step} {flaw}; it counts as missing")
        return Checkpoint(step, items, restored[_METADATA], evaluation)


def set_aside(directory: epath.Path) -> list[epath.Path]:
    """Returns the folders of the checkpoints that were set aside, the oldest first."""
    aside = directory / _SET_ASIDE
    return sorted((aside / name for name in manifests.names(aside)), key=_age)


def delete(directory: epath.Path, step: int) -> None:
    """Deletes a checkpoint and its evaluation."""
    _move(directory, step, _REMOVING).rmtree()
    (directory / _REMOVING).rmtree()


def _move(directory: epath.Path, step: int, target: str) -> epath.Path:
    """Moves a checkpoint to a folder of `directory`, and returns its new path."""
    parent, folder = directory / target, directory / str(step)
    parent.mkdir(exist_ok=True)
    paths = (parent / f"{step}-{n}" for n in itertools.count(1))
    path = next(path for path in paths if not path.exists())
    manifests.evaluation_path(folder).unlink(missing_ok=True)
    folder.rename(path)
    return path


def _age(folder: epath.Path) -> tuple[float, int, str]:
    """Orders checkpoints by the time at which they were written, then by their step."""
    return folder.stat().mtime or 0, len(folder.name), folder.name
