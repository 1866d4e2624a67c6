"""`report/curves.png`: the errors against the iterations, as the paper draws them."""

import io
import itertools
import math
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from etils import epath
from jaxtyping import Float

from resnet_jax.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]

_COLOURS = ("#c0392b", "#1f6fb2", "#2e8b57")


def draw_curves(
    rows: Iterable[Mapping[str, int | float | str]], path: epath.PathLike, *, title: str
) -> None:
    """Draws training error (thin) and test error (bold) against iterations, as a PNG.

    The form is that of figures 1, 4 and 6 of the paper (arXiv 1512.03385). The limits are those of
    what happens after the first fifth of the run, when the errors have come down. Where an error is
    not a finite number, its curve has a gap.

    Args:
      rows: Rows of `metrics.jsonl`.
      path: The image; it is replaced when the new one is whole.
      title: The network and the data, above the axes.
    """
    # Here, for it takes half a second, and only trainers draw.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    curves = _curves(rows)
    last = max((float(x.max()) for x, _ in curves.values()), default=0.0)
    grid = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(*error_limits(curves.values(), last))
    unit, iterations = iterations_unit(last)

    figure = Figure(figsize=(6.4, 4.4), dpi=150)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.105, 0.125, 0.865, 0.785))
    if "train" in curves:
        x, y = curves.pop("train")
        axes.plot(x / unit, y, color=_COLOURS[0], alpha=0.65, linewidth=1, label="training error")
    for colour, (split, (x, y)) in zip(itertools.cycle(_COLOURS), curves.items(), strict=False):
        marker = "o" if len(x) <= 12 else None  # a single point has no line
        label = f"{split} error"
        if not math.isnan(y[-1]):
            label += f", {y[-1]:.2f}% at step {x[-1]:,.0f}"
        axes.plot(x / unit, y, marker=marker, color=colour, linewidth=2.6, label=label)

    axes.set_xlim(0, 1.02 * max(last, 1.0) / unit)
    axes.set_ylim(grid[0], grid[-1])
    axes.set_yticks(grid)
    axes.set_xlabel(iterations, fontsize=11)
    axes.set_ylabel("error (%)", fontsize=11)
    axes.set_title(title, fontsize=12)
    style(axes)
    if axes.lines:
        axes.legend(loc="upper right", edgecolor="none")

    image = io.BytesIO()
    canvas.print_png(image)
    write_atomically(path, image.getvalue())


def style(axes: "Axes") -> None:
    """Gives axes a grid, and lines on the left and below only."""
    axes.grid(True, color="#dcdfe3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#8a9099")


def _curves(rows: Iterable[Mapping[str, int | float | str]]) -> dict[str, Curve]:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if "top1_error" in row:
            error = float(row["top1_error"])
            point = (float(row["step"]), error if math.isfinite(error) else math.nan)
            points.setdefault(str(row["split"]), []).append(point)
    arrays = {split: np.array(curve) for split, curve in points.items()}
    return {split: (curve[:, 0], curve[:, 1]) for split, curve in arrays.items()}


def iterations_unit(last: float) -> tuple[float, str]:
    """Returns the iterations that are 1 on an axis that ends with the last one, and its label."""
    if last >= 1e5:
        return 1e4, "iterations (1e4)"
    if last >= 5e3:
        return 1e3, "iterations (1e3)"
    return 1.0, "iterations"


def error_limits(curves: Collection[Curve], last: float) -> tuple[float, float]:
    """Returns the lowest and the highest error to show."""
    for begin in (last / 5, 0.0):
        errors = [y[(x >= begin) & np.isfinite(y)] for x, y in curves]
        shown = np.concatenate([*errors, np.zeros(0)])
        if shown.size:
            low, high = float(shown.min()), float(shown.max())
            # The paper's ImageNet figures begin above zero; a flat curve needs no magnifying.
            low = 0.9 * low if high / 3 < low < 0.8 * high else 0.0
            return low, max(min(1.15 * high, 100.0), 0.1)
    return 0.0, 100.0
