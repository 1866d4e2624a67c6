"""Plots of what a network sees, 960 pixels wide."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from resnet_jax.analysis.responses import Gradients
from resnet_jax.data import Box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CHANNELS = 16  # of a layer, at most
_NAMED = 24  # layers at most whose names are written
_COLOUR = "#c0392b"


def plot_filters(kernel: Float[np.ndarray, "k l c filters"], title: str) -> "Figure":
    """Draws filters on one scale: mid-grey is zero, black and white are the extremes."""
    height, width, channels, filters = kernel.shape
    columns = math.ceil(math.sqrt(2 * filters))
    rows = -(-filters // columns)
    figure = _figure(0.7 + 6.6 * rows * height / (columns * width), title)
    axes = figure.subplots()
    size = float(np.abs(kernel).max()) or 1.0
    sheet = _tiles(np.moveaxis(kernel, -1, 0), columns)
    drawn = axes.imshow(sheet[..., 0], cmap="gray", vmin=-size, vmax=size)
    if channels == 3:
        axes.imshow(np.nan_to_num(0.5 + sheet / size / 2, nan=1.0))
    axes.axis("off")
    figure.colorbar(drawn, ax=axes, label="weight" if channels == 1 else "weight of each colour")
    return figure


def plot_activations(
    image: UInt8[np.ndarray, "h w c"],
    maps: Mapping[str, Float[np.ndarray, "h2 w2 d"]],
    title: str,
) -> "Figure":
    """Draws an image and the first channels of layers, each layer on a scale of its own."""
    rows = -(-(1 + len(maps)) // 3)
    figure = _figure(0.6 + 2.55 * rows, title)
    grid = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    _show(grid[0], image, f"image\n{image.shape[0]}x{image.shape[1]} pixels")
    for axes, (name, values) in zip(grid[1:], maps.items(), strict=False):
        height, width, channels = values.shape
        tiles = np.moveaxis(values, -1, 0)[:_CHANNELS]
        low, high = float(tiles.min()), float(tiles.max())
        if low < 0:
            high = max(-low, high)
        drawn = axes.imshow(
            _tiles(tiles[..., None], math.isqrt(len(tiles) - 1) + 1)[..., 0],
            cmap="RdBu_r" if low < 0 else "magma",
            vmin=-high if low < 0 else 0.0,
            vmax=high,
        )
        channels = f"channels 0 to {len(tiles) - 1} of {channels}"
        axes.set_title(f"{name}: {height}x{width}\n{channels}", fontsize=9)
        figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03, label="activation")
    return figure


def plot_patches(
    images: Sequence[UInt8[np.ndarray, "h w c"]],
    boxes: Sequence[Box],
    captions: Sequence[str],
    title: str,
) -> "Figure":
    """Draws images with a box in each, and on the right what is in the boxes."""
    side = math.isqrt(len(images) - 1) + 1
    rows = -(-len(images) // side)
    figure = _figure(0.8 + 4.1 * rows / side, title)
    widths = [1.0] * side
    grid = figure.subplots(rows, 2 * side + 1, squeeze=False, width_ratios=[*widths, 0.2, *widths])
    for axes in grid.ravel():
        axes.axis("off")
    whole, parts = grid[:, :side].ravel(), grid[:, side + 1 :].ravel()
    for number, (image, box, caption) in enumerate(zip(images, boxes, captions, strict=True)):
        left, top, right, bottom = map(int, box)
        _show(whole[number], image, caption)
        x, y = np.array([left, right]) - 0.5, np.array([top, bottom]) - 0.5
        corners = x[[0, 1, 1, 0, 0]], y[[0, 0, 1, 1, 0]]
        whole[number].plot(*corners, color=_COLOUR, linewidth=1.8, clip_on=False)
        _show(parts[number], image[top:bottom, left:right], "")
    return figure


def plot_grad_cam(
    image: UInt8[np.ndarray, "h w c"], cam: Float[np.ndarray, "h2 w2"], layer: str, title: str
) -> "Figure":
    """Draws an image, and beside it the same in grey under the map, enlarged to the image."""
    height, width, _ = image.shape
    figure = _figure(0.8 + 3.5 * height / width, title)
    left, right = figure.subplots(1, 2)
    _show(left, image, "image")
    _show(right, image.mean(axis=-1, keepdims=True).astype(np.uint8), "")
    right.set_title(f"Grad-CAM at {layer}, {cam.shape[0]}x{cam.shape[1]}", fontsize=9)
    whole = (-0.5, width - 0.5, height - 0.5, -0.5)
    drawn = right.imshow(
        cam, cmap="inferno", alpha=0.6, vmin=0.0, interpolation="bilinear", extent=whole
    )
    figure.colorbar(drawn, ax=right, fraction=0.046, pad=0.03, label="contribution to the logit")
    return figure


def plot_gradients(gradients: Gradients, title: str) -> "Figure":
    """Draws the signals and the norms of the gradients layer by layer, over whole decades."""
    figure = _figure(6.4, title)
    curves = {
        "signal\n(standard deviation)": gradients.signal,
        "gradient of the signal\n(L2 norm)": gradients.response,
        "gradient of the kernel\n/ norm of the kernel": gradients.relative,
    }
    grid = figure.subplots(3, 1, sharex=True)
    numbers = np.arange(1, 1 + len(gradients.layers))
    for axes, (label, values) in zip(grid, curves.items(), strict=True):
        axes.semilogy(numbers, values, marker="o", markersize=3, color=_COLOUR)
        powers = np.log10(values[values > 0], dtype=np.float64)
        if powers.size:
            axes.set_ylim(10 ** np.floor(powers.min()), 10 ** np.ceil(powers.max() + 1e-3))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.set_ylabel(label, fontsize=9)
        axes.grid(True, color="#dcdfe3", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    if len(numbers) <= _NAMED:
        grid[-1].set_xticks(numbers, gradients.layers, rotation=90, fontsize=8)
    else:
        grid[-1].set_xlabel("layer: convolutions and fully connected layers in order")
    return figure


def _figure(height: float, title: str) -> "Figure":
    # Here, for it takes half a second, and not every program draws.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((8, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    return figure


def _show(axes: "Axes", image: UInt8[np.ndarray, "h w c"], title: str) -> None:
    axes.imshow(np.broadcast_to(image, (*image.shape[:2], 3)))
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def _tiles(tiles: Float[np.ndarray, "n h w c"], columns: int) -> Float[np.ndarray, "h2 w2 c"]:
    """Returns the tiles by rows, enlarged, with gaps of NaN between them."""
    n, height, width, channels = tiles.shape
    columns = min(columns, n)
    rows, times = -(-n // columns), -(-12 // height)
    shape = (rows * columns, times * height + 1, times * width + 1, channels)
    sheet = np.full(shape, np.nan, np.float32)
    sheet[:n, :-1, :-1] = tiles.repeat(times, axis=1).repeat(times, axis=2)
    sheet = sheet.reshape(rows, columns, *shape[1:]).swapaxes(1, 2)
    return sheet.reshape(rows * shape[1], columns * shape[2], channels)
