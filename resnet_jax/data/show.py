"""Plots of a network's input: the images of a data set after augmentation and normalisation."""

import io
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from resnet_jax.data.augment import Augmentation, preprocess
from resnet_jax.data.batches import train_batches
from resnet_jax.data.draws import Order
from resnet_jax.data.images import ImageSet
from resnet_jax.data.statistics import Statistics
from resnet_jax.errors import InputError, exit_moved

_CLIPPED = 0.005
"""Share of the values that may become black, and white."""

# Pixels.
_MARGIN = 16
_GAP = 6  # between images
_BETWEEN = 28  # plots
_HEADER = 76
_CAPTION = 18
_SMALLEST, _LARGEST = 112, 256  # sides of images

_INK, _FAINT = "#22262b", "#6b7178"


class Plot(NamedTuple):
    """Images of one size that are drawn together, each above its caption."""

    title: str
    images: UInt8[np.ndarray, "n h w c"]
    captions: tuple[str, ...]


def plot_training(
    images: ImageSet,
    augmentation: Augmentation,
    statistics: Statistics,
    *,
    batch_size: int,
    seed: int,
    step: int,
    count: int,
) -> tuple[Plot, Plot]:
    """Returns the first images of a step's batch, and their views for evaluation.

    The arguments are those of `train_batches`, and how many images are wanted, at least 1.

    Raises:
      InputError: The step is negative, there are no images, or one cannot be decoded.
    """
    if step < 0:
        raise InputError(f"steps are counted from 0, not {step}")
    rows = slice(0, min(count, batch_size))
    (batch,) = train_batches(
        images, augmentation, batch_size=batch_size, seed=seed, start=step, stop=step + 1, rows=rows
    )
    pixels, _ = images.read(Order(len(images), batch_size, seed).indices(step)[rows])
    in_training, in_evaluation = _displayed(
        statistics,
        preprocess(jax.device_put(batch), statistics, padding=augmentation.padding),
        preprocess({"image": jnp.asarray(pixels)}, statistics, padding=0),
    )
    captions = tuple(images.class_names[label] for label in batch["label"])
    return (
        Plot(f"in training, step {step}", in_training, captions),
        Plot("the same images in evaluation", in_evaluation, captions),
    )


def plot_evaluation(images: ImageSet, statistics: Statistics, *, count: int) -> Plot:
    """Returns the first `count` images of a set in their views for evaluation."""
    pixels, labels = images.read(np.arange(min(count, len(images))))
    inputs = preprocess({"image": jnp.asarray(pixels)}, statistics, padding=0)
    (displayed,) = _displayed(statistics, inputs)
    return Plot("in evaluation", displayed, tuple(images.class_names[label] for label in labels))


def draw(plots: Sequence[Plot], *, columns: int, title: str, note: str) -> bytes:
    """Draws plots of equally many images side by side, under a title and a note; returns the PNG.

    Small images are enlarged and large ones reduced, by whole numbers, so that pixels stay pixels.
    """
    import matplotlib  # for its font; here, because it takes a tenth of a second

    tiles = [[_tile(image) for image in plot.images] for plot in plots]
    side = tiles[0][0].width
    # Text of one size would be lost on a sheet of large images.
    scale = max(1.0, side / 150)
    header, line = round(_HEADER * scale), round(_CAPTION * scale)
    rows = -(-len(tiles[0]) // columns)
    plot_width = columns * (side + _GAP) - _GAP
    width = 2 * _MARGIN + len(plots) * (plot_width + _BETWEEN) - _BETWEEN
    height = header + rows * (side + line + _GAP) + _MARGIN

    sheet = Image.new("RGB", (width, height), "white")
    canvas = ImageDraw.Draw(sheet)
    font = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    large, medium, small = (ImageFont.truetype(font, size * scale) for size in (17, 13, 10))
    canvas.text((_MARGIN, 10 * scale), _printable(title), _INK, large)
    canvas.text((_MARGIN, 32 * scale), _printable(note), _FAINT, small)
    for number, (plot, images) in enumerate(zip(plots, tiles, strict=True)):
        left = _MARGIN + number * (plot_width + _BETWEEN)
        canvas.text((left, header - 20 * scale), _printable(plot.title), _INK, medium)
        for at, (image, caption) in enumerate(zip(images, plot.captions, strict=True)):
            row, column = divmod(at, columns)
            x, y = left + column * (side + _GAP), header + row * (side + line + _GAP)
            sheet.paste(image, (x, y))
            text = _printable(caption)
            if small.getlength(text) > side:
                while small.getlength(text + "...") > side:
                    text = text[:-1]
                text += "..."
            canvas.text((x + side / 2, y + side + 2 * scale), text, _INK, small, anchor="ma")
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return png.getvalue()


def _tile(pixels: UInt8[np.ndarray, "h w c"]) -> Image.Image:
    colours = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    image = Image.fromarray(colours)
    if image.width > _LARGEST:
        return image.reduce(-(-image.width // _LARGEST))
    times = max(1, round(_SMALLEST / image.width))
    size = (times * image.width, times * image.height)
    return image.resize(size, Image.Resampling.NEAREST)


def _printable(text: str) -> str:
    """Returns a text with escapes for all but Latin, Greek and Cyrillic, which the font has."""
    return "".join(
        letter
        if letter.isprintable() and ord(letter) < 0x530
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _displayed(
    statistics: Statistics, *inputs: Float32[Array, "n h w c"]
) -> list[UInt8[np.ndarray, "n h w c"]]:
    """Returns the network's inputs as images that can be displayed.

    They are multiplied with the standard deviation, and the mean colour is added; so a mean image
    that was subtracted is missing but for its colour, as it is to the network. If that leaves the
    range from black to white, contrast is reduced, of all alike.
    """
    mean = np.asarray(statistics.mean, np.float64)
    colour = mean.reshape(-1, mean.shape[-1]).mean(axis=0)
    values = [np.asarray(one, np.float64) * np.asarray(statistics.std) + colour for one in inputs]
    every = np.concatenate([one.ravel() for one in values])
    black, white = np.quantile(every, [_CLIPPED, 1 - _CLIPPED])
    black, white = min(black, 0.0), max(white, 255.0)
    return [
        np.rint(np.clip(255 * (one - black) / (white - black), 0, 255)).astype(np.uint8)
        for one in values
    ]


if __name__ == "__main__":
    exit_moved("show")
