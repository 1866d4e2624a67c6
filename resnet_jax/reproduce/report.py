"""The report of an experiment: one JSON object, and the Markdown and the picture made of it."""

import contextlib
import functools
import importlib.metadata
import json
import pathlib
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import jax
from etils import epath
from scipy import special

from resnet_jax.analysis import Summary, summarize
from resnet_jax.analysis.tables import stage_table
from resnet_jax.config import data_name, load_config
from resnet_jax.errors import InputError
from resnet_jax.evaluation import Protocol
from resnet_jax.files import check_writable, write_atomically
from resnet_jax.models import create_model, image_shape
from resnet_jax.reproduce import runs as measured
from resnet_jax.reproduce.figures import draw_report
from resnet_jax.reproduce.markdown import markdown
from resnet_jax.reproduce.paper import EXPERIMENTS, METRICS, Experiment, Row
from resnet_jax.reproduce.runs import Plan, Run

_MARGIN = 1.0
"""Percentage points: a smaller difference in training error is not called one."""


class Value(TypedDict):
    """A metric of a row.

    Attributes:
      paper: The published number.
      ours: The numbers of the runs, none if nothing was run.
      mean: Their mean.
      interval: Half the width of its 95% interval, by Student's t; of one run there is none.
      difference: The mean less the published number.
    """

    paper: float | None
    ours: list[float]
    mean: float | None
    interval: float | None
    difference: float | None


class ReportRow(TypedDict):
    """A row: its runs' seeds and steps, and its values by metric.

    Attributes:
      curves: Of each run, steps and errors of `train` and `test`.
      responses: Of each run, the deviations of the responses by layer.
    """

    label: str
    configs: list[str]
    seeds: list[int]
    steps: list[int]
    values: dict[str, Value]
    curves: NotRequired[list[dict[str, list[list[float]]]]]
    responses: NotRequired[list[dict[str, float]]]


class Report(TypedDict):
    """The report of an experiment, as in its JSON file.

    Attributes:
      heading: The title, and the length of the runs if it is not the recipe's.
      kind: What is drawn, see `Experiment`.
      length: The length of the runs, as a share of the recipe's; None if they differ.
      conclusions: Sentences that follow from the numbers.
      text: More for the Markdown, in a fixed-width font.
    """

    name: str
    heading: str
    kind: str
    protocol: str
    data: str
    length: float | None
    rows: list[ReportRow]
    conclusions: list[str]
    text: str
    note: str
    hardware: str
    version: str
    seconds: float
    command: str


def make_report(name: str, plan: Plan, *, command: str, note: str = "") -> Report:
    """Makes the runs of an experiment that are missing, and measures all.

    Args:
      name: One of `EXPERIMENTS`.
      plan: The runs.
      command: The command line, for the report.
      note: A sentence for the report, such as on what earlier runs were made.

    Raises:
      InputError: What `Plan.make` and `evaluate_ensemble` refuse.
      Interrupted: A signal ended a run; the same call goes on.
    """
    started = time.monotonic()
    experiment = EXPERIMENTS[name]
    check_writable(plan.out / f"{name}.json")
    specs: dict[str, int] = {}
    for row in experiment.rows:
        for spec in row.configs if experiment.kind != "sizes" else ():
            specs[spec] = max(specs.get(spec, 0), plan.seeds, row.configs.count(spec))
    made = plan.make(specs) if specs else {}
    rows = [_row(experiment, row, made, plan) for row in experiment.rows]
    all_runs = [run for runs in made.values() for run in runs]
    lengths = {_length(run, spec) for spec, runs in made.items() for run in runs}
    length = None if len(lengths) > 1 else min(lengths, default=1.0)
    sources = {_data_of(run) for run in all_runs}
    return Report(
        name=name,
        heading=_heading(experiment.title, length),
        kind=experiment.kind,
        protocol=experiment.protocol,
        data=", ".join(sorted(sources)) or experiment.data,
        length=length,
        rows=rows,
        conclusions=_conclusions(experiment, rows),
        text="" if specs else "\n\n".join(map(_stages, experiment.rows)),
        note=note,
        hardware=_hardware() + ("; the runs were made before" if plan.runs else ""),
        version=_version(),
        seconds=round(time.monotonic() - started, 1),
        command=command,
    )


def write_report(report: Report, out: epath.Path) -> list[epath.Path]:
    """Writes `NAME.json`, `NAME.md` and `NAME.png`, and returns their paths."""
    contents = {
        "json": _json(report).encode(),
        "md": markdown(report).encode(),
        "png": draw_report(report),
    }
    paths = [out / f"{report['name']}.{ending}" for ending in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        check_writable(path)
        write_atomically(path, content)
    return paths


def redraw(name: str, out: epath.Path) -> list[epath.Path]:
    """Writes the Markdown and the picture of the JSON that is there, and returns the paths.

    Raises:
      InputError: There is no such file, or it is not one of this experiment.
    """
    path = out / f"{name}.json"
    try:
        report = json.loads(path.read_text())
        if report["name"] != name:
            raise ValueError(f"it is of {report['name']}")
        return write_report(report, out)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}; leave --redraw out to make it") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a report of {name} ({error})") from error


def _heading(title: str, length: float | None) -> str:
    """Returns the title, with the length of the runs if it is not the recipe's."""
    if length is None:
        return f"{title}, runs of different lengths"
    return title if length == 1 else f"{title}, at {length:.3g} times the length"


def _row(
    experiment: Experiment, row: Row, made: Mapping[str, Sequence[Run]], plan: Plan
) -> ReportRow:
    found = ReportRow(label=row.label, configs=[*row.configs], seeds=[], steps=[], values={})
    values: dict[str, list[float]] = {metric: [] for metric in experiment.metrics}
    if experiment.kind == "sizes":
        values["multiply_adds"] = [_summary(row.configs[0]).multiply_adds / 1e9]
    for runs in _groups(row, made):
        found["seeds"].append(runs[0].config.seed)
        found["steps"].append(runs[0].config.total_steps)
        for metric, value in _measure(experiment, runs, plan, found).items():
            if metric in values:
                values[metric].append(value)
    found["values"] = {m: summary(ours, row.paper.get(m)) for m, ours in values.items()}
    return found


def _groups(row: Row, made: Mapping[str, Sequence[Run]]) -> list[list[Run]]:
    """Returns the runs that are measured together: each alone, or those of an ensemble."""
    if len(row.configs) == 1:
        return [[run] for run in made.get(row.configs[0], ())]
    members = []
    for number, spec in enumerate(row.configs):
        earlier = row.configs[:number].count(spec)
        members += made.get(spec, ())[earlier : earlier + 1]
    return [members] if members and len(members) == len(row.configs) else []


def _measure(
    experiment: Experiment, runs: list[Run], plan: Plan, found: ReportRow
) -> dict[str, float]:
    """Returns the metrics of a run or an ensemble, and adds what is drawn to the row."""
    run, values = runs[0], {}
    if experiment.kind == "responses":
        responses = measured.measure_responses(run, plan)
        found.setdefault("responses", []).append(responses)
        return {"mean_response": statistics.mean(responses.values())}
    if "train_error" in experiment.metrics:
        split = run.config.data.train_split
        errors = measured.measure_errors(runs, plan, protocol=Protocol(), split=split)
        values["train_error"] = errors["top1_error"]
    if experiment.protocol == "single_crop" and len(runs) == 1:  # as at the end of training
        curves = measured.curves(run)
        if experiment.kind == "curves":
            found.setdefault("curves", []).append(curves)
        return {**values, **measured.last_errors(curves)}
    return {**values, **measured.measure_errors(runs, plan, protocol=Protocol(experiment.protocol))}


def summary(ours: Sequence[float], paper: float | None) -> Value:
    """Returns the mean of the runs, its 95% interval, and the difference from the paper."""
    mean = interval = difference = None
    if ours:
        mean = statistics.fmean(ours)
        difference = None if paper is None else mean - paper
    if len(ours) > 1:
        error = statistics.stdev(ours) / len(ours) ** 0.5
        interval = float(special.stdtrit(len(ours) - 1, 0.975)) * error
    return Value(
        paper=paper,
        ours=[round(number, 6) for number in ours],
        mean=mean,
        interval=interval,
        difference=difference,
    )


def _conclusions(experiment: Experiment, rows: Sequence[ReportRow]) -> list[str]:
    """Returns sentences on depth in plain and in residual networks."""
    metric = experiment.metrics[0]
    sentences = []
    families = ([r for r in rows if r["label"].startswith(kind)] for kind in ("plain", "ResNet"))
    families = [[row for row in family if row["values"][metric]["ours"]] for family in families]
    for family in families if experiment.kind == "curves" else ():
        if len(family) < 2:
            continue
        shallow, deep = (_by_run(row, metric) for row in (family[0], family[-1]))
        pairs = shallow.keys() & deep.keys()
        if not pairs:
            continue
        worse = sum(deep[pair] > shallow[pair] + _MARGIN for pair in pairs)
        sentences.append(
            f"The {METRICS[metric].removesuffix(' (%)')} of {family[-1]['label']} is more than "
            f"{_MARGIN:g} point above that of {family[0]['label']} in {worse} of {len(pairs)} "
            f"seeds (means {_mean(family[-1], metric):.2f}% and {_mean(family[0], metric):.2f}%)."
        )
    if experiment.kind == "responses":
        plain, residual = families
        depths = {row["label"].rpartition("-")[2]: row for row in plain}
        for row in residual:
            depth = row["label"].rpartition("-")[2]
            if depth in depths and set(row["steps"]) == set(depths[depth]["steps"]):
                ours, theirs = _mean(row, metric), _mean(depths[depth], metric)
                than = "smaller" if ours < theirs else "not smaller"
                sentences.append(
                    f"The mean response of {row['label']} is {than} than that of "
                    f"{depths[depth]['label']} ({ours:.2f} and {theirs:.2f})."
                )
    return sentences


def _by_run(row: ReportRow, metric: str) -> dict[tuple[int, int], float]:
    """Returns the values of a metric by seed and steps, which runs that are compared share."""
    runs = zip(row["seeds"], row["steps"], strict=True)
    return dict(zip(runs, row["values"][metric]["ours"], strict=True))


def _mean(row: ReportRow, metric: str) -> float:
    mean = row["values"][metric]["mean"]
    assert mean is not None
    return mean


def _stages(row: Row) -> str:
    return f"{row.label}\n{stage_table(_summary(row.configs[0]))}"


@functools.cache
def _summary(name: str) -> Summary:
    return summarize(create_model(name), image_shape(name))


def _length(run: Run, spec: str) -> float:
    return run.config.total_steps / load_config(spec).total_steps


def _data_of(run: Run) -> str:
    data = run.config.data
    return f"{data_name(run.config)} ({data.train_split}, {data.eval_split})"


def _hardware() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    processor = f"{len(names) or 1} x {names[0] if names else platform.machine()}"
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return processor
    return f"{len(devices)} x {devices[0].device_kind}, {processor}"


def _version() -> str:
    """Returns the commit of a checkout, or the version of the installed package."""
    root = pathlib.Path(__file__).parents[2]
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    if (root / ".git").exists():
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return f"commit {subprocess.check_output(command, text=True).strip()}"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"version {importlib.metadata.version('resnet_jax')}"
    return "an unknown version"


def _json(report: Report) -> str:
    """Returns the report as JSON, with lists of numbers in one line each."""
    text = json.dumps(report, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n"
