"""Lists, verifies and prunes the checkpoints of a run: `checkpoints list|verify|prune W`.

  list    A line for each checkpoint, also for those that were set aside. Only manifests are read:
          "finished" does not say that the other files are good.
  verify  Reads every byte of each checkpoint, or of that of `--step N`, and says whether it is what
          was written.
  prune   Verifies all, then deletes those that are neither among the newest `--keep_newest` nor the
          best `--keep_best` (by default the numbers of the run's config). Those that are damaged or
          unfinished do not count, and stay. `--dry_run` deletes nothing.

No trainer can work in a local W that is being pruned; an object store keeps none out. Exit status:
0 done, 1 a verified checkpoint is not good, 2 wrong input, 75 a trainer is at work where something
was to be pruned.
"""

import argparse
import contextlib
import datetime
import os
import sys
from collections.abc import Sequence

from etils import epath
from ml_collections import ConfigDict

from resnet_jax.analysis.tables import align
from resnet_jax.checkpoints import Layout, delete, lock, read_config, set_aside
from resnet_jax.checkpoints import manifest as manifests
from resnet_jax.checkpoints.manifest import Flaw, Manifest
from resnet_jax.cli.frame import EXIT_FAILED, Parser
from resnet_jax.config import complete
from resnet_jax.errors import InputError, unknown
from resnet_jax.files import is_local

_OPTIONS = {"step": "verify", "keep_newest": "prune", "keep_best": "prune", "dry_run": "prune"}


def main(arguments: Sequence[str]) -> None:
    """Does what the arguments, those after the command, say.

    Raises:
      InputError: There is no such action, workdir or checkpoint, or a number is out of range.
      BusyError: A trainer is at work in a workdir that is to be pruned.
    """
    parser = Parser("checkpoints", __doc__)
    parser.add_argument("action", help=", ".join(_ACTIONS))
    parser.add_argument("workdir", metavar="W", help="the workdir of a run")
    parser.add_argument("--step", type=int, metavar="N", help="of verify")
    parser.add_argument("--keep_newest", type=int, metavar="N", help="of prune, at least 1")
    parser.add_argument("--keep_best", type=int, metavar="N", help="of prune")
    parser.add_argument("--dry_run", action="store_true", help="of prune")
    given = parser.parse_args(arguments)
    if given.action not in _ACTIONS:
        raise unknown("action of checkpoints", given.action, _ACTIONS)
    for name, action in _OPTIONS.items():
        if action != given.action and getattr(given, name) not in (None, False):
            raise InputError(f"--{name} is an option of {action}, not of {given.action}")
    config = complete(read_config(given.workdir))
    layout = Layout(given.workdir)
    if not manifests.steps(layout.checkpoints) and not set_aside(layout.checkpoints):
        raise InputError(f"{layout.path} has no checkpoints yet")
    _ACTIONS[given.action](layout, config, given)


def _list(layout: Layout, config: ConfigDict, given: argparse.Namespace) -> None:
    directory = layout.checkpoints
    finished, flaws = manifests.survey(directory)
    states = {one.step: "finished" for one in finished}
    states |= {step: flaw.removeprefix("is ") for step, flaw in flaws.items()}
    for name, ones in (("newest", finished[-1:]), ("best", manifests.best_first(finished)[:1])):
        for one in ones:
            states[one.step] += f", {name}"
    metrics = {one.step: f"{one.metric:.2f}%" for one in finished if one.metric is not None}
    rows = [["step", "state", f"top-1 error on {config.data.eval_split}", "size", "written"]]
    for step, state in sorted(states.items()):
        rows.append([str(step), state, metrics.get(step, ""), *_traces(directory / str(step))])
    for folder in set_aside(directory):
        step = folder.name.partition("-")[0]
        rows.append([step, f"{folder.parent.name}/{folder.name}", "", *_traces(folder)])
    print(align(rows, left=2))


def _traces(folder: epath.Path) -> tuple[str, str]:
    """Returns the size of the files of a checkpoint, and when the last one was written."""
    try:
        stats = [path.stat() for path in manifests.files(folder).values()]
    except OSError:  # deleted since, or without permission
        return "", ""
    last = datetime.datetime.fromtimestamp(max((stat.mtime or 0 for stat in stats), default=0))
    return f"{sum(stat.length for stat in stats) / 1e6:,.1f} MB", f"{last:%Y-%m-%d %H:%M:%S}"


def _verify(layout: Layout, config: ConfigDict, given: argparse.Namespace) -> None:
    steps = manifests.steps(layout.checkpoints)
    if given.step is not None and given.step not in steps:
        there = ", ".join(map(str, steps)) or "none"
        raise InputError(f"no checkpoint {given.step} in {layout.checkpoints}; there is {there}")
    status = 0
    for step in steps if given.step is None else [given.step]:
        folder = layout.checkpoints / str(step)
        try:
            _verified(folder, step)
            print(f"checkpoint {step} is good", flush=True)
        except Flaw as flaw:
            if folder.exists():  # else it was deleted by a run that is going on
                print(f"checkpoint {step} {flaw}", flush=True)
                status = EXIT_FAILED
    sys.exit(status)


def _prune(layout: Layout, config: ConfigDict, given: argparse.Namespace) -> None:
    newest = config.keep_newest if given.keep_newest is None else given.keep_newest
    best = config.keep_best if given.keep_best is None else given.keep_best
    for name, number, least in (("keep_newest", newest, 1), ("keep_best", best, 0)):
        if number < least:
            raise InputError(f"--{name} is {number}; it must be at least {least}")
    with contextlib.ExitStack() as stack:
        if is_local(layout.path) and not given.dry_run:
            stack.callback(os.close, lock(layout.path))
        good = []
        for step in manifests.steps(layout.checkpoints):
            try:
                good.append(_verified(layout.checkpoints / str(step), step))
            except Flaw as flaw:
                print(f"checkpoint {step} {flaw}, and stays")
        old = manifests.outdated(good, newest, best)
        for one in old:
            if not given.dry_run:
                delete(layout.checkpoints, one.step)
            done = "would be deleted" if given.dry_run else "is deleted"
            print(f"checkpoint {one.step} {done}", flush=True)
        kept = ", ".join(str(one.step) for one in good if one not in old)
        print(f"kept: {kept or 'none'}")


def _verified(folder: epath.Path, step: int) -> Manifest:
    """Returns the manifest of a checkpoint that is good, its evaluation too; raises `Flaw`."""
    manifest = manifests.verify(folder, step)
    manifests.read_evaluation(folder, step)
    return manifest


_ACTIONS = {"list": _list, "verify": _verify, "prune": _prune}
