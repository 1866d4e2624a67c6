"""The picture of a report, drawn from its JSON alone."""

import io
import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from resnet_jax.reproduce.paper import METRICS
from resnet_jax.training.curves import error_limits, iterations_unit, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from resnet_jax.reproduce.report import Report, ReportRow

_COLOURS = ("#d9a514", "#2e8b57", "#1f6fb2", "#c0392b", "#7d3c98", "#333333")
_PAPER, _OURS = "#8a9099", "#1f6fb2"


def draw_report(report: "Report") -> bytes:
    """Returns a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, for it takes half a second

    image = io.BytesIO()
    FigureCanvasAgg(figure_of(report)).print_png(image)
    return image.getvalue()


def figure_of(report: "Report") -> "Figure":
    """Returns the figure: curves, responses, or the numbers of the rows."""
    from matplotlib.figure import Figure

    panels, height = 2, 4.4
    if report["kind"] in ("numbers", "sizes"):
        panels, height = len(report["rows"][0]["values"]), 1.4 + 0.36 * len(report["rows"])
    figure = Figure(figsize=(4.9 * panels + 1.0 * (panels == 1), height), dpi=120)
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    match report["kind"]:
        case "curves":
            _draw_curves(axes, report)
        case "responses":
            _draw_responses(axes, report)
        case _:
            _draw_numbers(axes, report)
    for one in axes:
        style(one)
    title = textwrap.fill(report["heading"], round(10.5 * figure.get_figwidth()))
    figure.suptitle(title, fontsize=12)
    figure.tight_layout(rect=(0, 0, 1, 0.99))
    return figure


def _draw_curves(axes: Sequence["Axes"], report: "Report") -> None:
    """Draws plain networks on the left and residual ones on the right, as figure 6.

    Thin lines are training errors, bold ones test errors, means over seeds; the band is from the
    least to the largest. Where the training error of the last state was measured, the table's
    subject, only training errors are drawn.
    """
    only_train = "train_error" in report["rows"][0]["values"]
    families = _families(report)
    drawn = []
    for one, (title, rows) in zip(axes, families.items(), strict=True):
        for row in rows:
            colour = _colour(report, row)
            for split in ("train",) if only_train else ("train", "test"):
                x, errors = _across_seeds(row, split)
                mean = errors.mean(axis=0)
                bold = only_train or split == "test"
                drawn.append((x, mean))
                one.plot(
                    x,
                    mean,
                    color=colour,
                    linewidth=2.2 if bold else 0.9,
                    alpha=1 if bold else 0.75,
                    label=row["label"] if bold else None,
                )
                if len(errors) > 1 and bold:
                    band = errors.min(axis=0), errors.max(axis=0)
                    one.fill_between(x, *band, color=colour, alpha=0.15, linewidth=0)
        one.set_title(title, fontsize=11)
        if one.lines:
            one.legend(loc="upper right", edgecolor="none", fontsize=9)
    last = max((float(x.max()) for x, _ in drawn), default=1.0)
    unit, label = iterations_unit(last)
    low, high = error_limits(drawn, last)
    for one in axes:
        one.set_xlim(0, last)
        one.set_ylim(0 if only_train else low, high)
        one.xaxis.set_major_formatter(lambda x, _: f"{x / unit:g}")
        one.set_xlabel(label)
    kind = "training error (%)" if only_train else "error (%): training thin, test bold"
    axes[0].set_ylabel(kind)


def _draw_responses(axes: Sequence["Axes"], report: "Report") -> None:
    """Draws the responses in the order of the layers and sorted, means over seeds, as figure 7."""
    for row in report["rows"]:
        if "responses" not in row:
            continue
        found = np.array([[*of_run.values()] for of_run in row["responses"]])
        colour = _colour(report, row)
        dashes = "--" if row["label"].startswith("plain") else "-"
        in_order, ranked = found.mean(axis=0), np.sort(found, axis=1)[:, ::-1].mean(axis=0)
        for one, values in zip(axes, (in_order, ranked), strict=True):
            layers = np.arange(1, len(values) + 1)
            one.plot(layers, values, dashes, color=colour, linewidth=1.6, label=row["label"])
    for one, order in zip(axes, ("in order", "sorted by magnitude"), strict=True):
        one.set_xlabel(f"3x3 layers, {order}")
        one.set_ylim(bottom=0)
        if one.lines:
            one.legend(loc="upper right", edgecolor="none", fontsize=9)
    axes[0].set_ylabel("standard deviation of the response")


def _draw_numbers(axes: Sequence["Axes"], report: "Report") -> None:
    """Draws the published number of each row as a ring, and ours as a point with its interval."""
    places = np.arange(len(report["rows"]))[::-1]
    for one, metric in zip(axes, report["rows"][0]["values"], strict=True):
        values = [row["values"][metric] for row in report["rows"]]
        for y, value in zip(places, values, strict=True):
            paper, ours, interval = value["paper"], value["mean"], value["interval"]
            if paper is not None:
                one.plot(paper, y, "o", markerfacecolor="none", color=_PAPER, markersize=9)
            if ours is not None:
                one.errorbar(ours, y, xerr=interval, fmt="o", color=_OURS, markersize=5, capsize=3)
        one.plot([], [], "o", markerfacecolor="none", color=_PAPER, markersize=9, label="paper")
        if any(value["ours"] for value in values):
            one.plot([], [], "o", color=_OURS, markersize=5, label="ours")
        one.set_xlabel(METRICS[metric])
        one.set_yticks(places, [row["label"] for row in report["rows"]])
        one.legend(loc="best", edgecolor="none", fontsize=9)


def _across_seeds(row: "ReportRow", split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps that all runs of a row have logged, and their errors, [runs, steps]."""
    runs = [dict(zip(*run[split], strict=True)) for run in row.get("curves", ())]
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    return np.array(steps), np.array([[run[step] for step in steps] for run in runs])


def _families(report: "Report") -> dict[str, list["ReportRow"]]:
    rows = [row for row in report["rows"] if "curves" in row]
    plain = [row for row in rows if row["label"].startswith("plain")]
    return {"plain": plain, "residual": [row for row in rows if row not in plain]}


def _depth(row: "ReportRow") -> int:
    return int("".join(itertools.takewhile(str.isdigit, row["label"].partition("-")[2])))


def _colour(report: "Report", row: "ReportRow") -> str:
    """Returns the colour of a depth, the same in plain and in residual networks."""
    depths = sorted({_depth(row) for row in report["rows"]})
    return _COLOURS[depths.index(_depth(row)) % len(_COLOURS)]
