"""Reproduces a table or a figure of the paper: `reproduce NAME --out R [--data D] [--seeds N]`.

Runs that are missing are trained with the configs of `configs/`, each in a workdir of its own in
`R/runs/`, and evaluated by the paper's protocol; `R/NAME.md`, `.json` and `.png` have the paper's
numbers beside ours. Stopped at any time, the same command goes on. `--list` says what each name
needs. `--fraction 0.125` shortens the runs and their schedules in proportion. `--runs DIR` takes
the workdirs of earlier runs and runs nothing. Exit status: 0 done, 2 wrong input, 75 ended by a
signal, and a run that was trained was saved (start it again), 130 by Ctrl-C where none was trained,
1 anything else.
"""

import shlex
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from resnet_jax.cli.frame import EXIT_LOST, Parser, parse_value
from resnet_jax.errors import InputError, unknown
from resnet_jax.files import resolve_path
from resnet_jax.reproduce import EXPERIMENTS, Plan, make_report, redraw, write_report

RESUME = "; the same command goes on"


def main(arguments: Sequence[str]) -> None:
    """Makes the report, and prints the names of its files."""
    parser = Parser("reproduce", __doc__)
    parser.add_argument("name", nargs="?", help=", ".join(EXPERIMENTS))
    parser.add_argument("--list", action="store_true", help="what each name needs")
    parser.add_argument("--out", metavar="R", help="folder of the report and the runs")
    parser.add_argument("--data", metavar="D", help="folder <split>/<class>/*, or tfds' data_dir")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs of each network")
    parser.add_argument("--fraction", type=float, default=1.0, metavar="F")
    parser.add_argument("--held_out", action="store_true", help="45,000 to train, 5,000 to test")
    parser.add_argument("--runs", metavar="DIR", help="folder with workdirs of earlier runs")
    parser.add_argument("--redraw", action="store_true", help="from the JSON that is there")
    parser.add_argument("--note", default="", help="a sentence for the report")
    parser.add_argument("--config.KEY", dest="_", metavar="VALUE", help="--config.KEY=VALUE")
    given, rest = parser.parse_known_args(arguments)
    if given._ is not None:
        raise InputError("the configs are those of the table; change them by --config.KEY=VALUE")
    changes = _changes(rest)
    if given.list:
        print(_listing())
        return
    if given.name is None or given.out is None:
        raise InputError("give a NAME and --out, or --list, which lists the names")
    if given.name not in EXPERIMENTS:
        raise unknown("table or figure", given.name, EXPERIMENTS)
    out, seeds = resolve_path(given.out), given.seeds
    if seeds is None:
        seeds = 3 if given.name == "degradation" else 1
    signal.signal(signal.SIGTERM, _end)  # where no run is trained, which would save first
    if given.redraw:
        paths = redraw(given.name, out)
    else:
        plan = Plan(
            out,
            data=given.data,
            seeds=seeds,
            fraction=given.fraction,
            changes=changes,
            held_out=given.held_out,
            runs=None if given.runs is None else resolve_path(given.runs),
        )
        note = ("--note", given.note, f"--note={given.note}")  # it has a place of its own
        words = [word for word in arguments if word not in note]
        command = shlex.join(["python", "-m", "resnet_jax", "reproduce", *words])
        paths = write_report(make_report(given.name, plan, command=command, note=given.note), out)
    print(*paths, sep="\n")


def _end(*_: object) -> NoReturn:
    print(f"resnet_jax reproduce: ended by SIGTERM{RESUME}", file=sys.stderr)
    sys.exit(EXIT_LOST)


def _changes(rest: Sequence[str]) -> dict[str, object]:
    """Returns the values of `--config.KEY=VALUE`, by nested keys."""
    changes: dict = {}
    for argument in rest:
        name, equals, text = argument.partition("=")
        if not name.startswith("--config.") or not equals:
            raise InputError(f"{argument!r} is not an argument of reproduce; see --help")
        *path, last = name.removeprefix("--config.").split(".")
        inner = changes
        for part in path:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InputError(f"{argument!r} is a key of a key that has a value")
        inner[last] = parse_value(text)
    return changes


def _listing() -> str:
    """Returns, for each name, what it is, what it needs and how many runs it has."""
    lines = []
    for name, experiment in EXPERIMENTS.items():
        runs = {spec for row in experiment.rows for spec in row.configs}
        count = "" if experiment.kind == "sizes" else f"{len(runs)} networks; "
        lines += [
            f"{name:<12}{experiment.title}",
            f"{'':<12}data: {experiment.data}; {count}{experiment.cost}",
        ]
    return "\n".join(lines)
