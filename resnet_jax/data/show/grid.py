"""Pictures in rows and columns, as a PNG."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from resnet_jax.data.show.panels import Panel

_DPI = 100
_MARGIN = 16  # pixels, all of them
_GAP = 6  # between pictures
_BETWEEN = 28  # panels
_HEADER = 76
_CAPTION = 18
_LETTER = 5.8  # of a caption, on average
_SMALLEST, _LARGEST = 112, 256  # sides of pictures
_BACKGROUND, _INK, _FAINT = "#ffffff", "#22262b", "#6b7178"


class _Text(NamedTuple):
    x: float
    y: float
    text: str
    size: float  # points
    color: str
    alignment: str


def draw_grid(panels: Sequence[Panel], *, columns: int, title: str, note: str) -> bytes:
    """Returns panels side by side, as a PNG.

    Small pictures are magnified and large ones reduced, by whole numbers, so that pixels stay
    pixels.

    Args:
      panels: Equally many pictures of one size each.
      columns: Pictures beside each other in a panel.
      title: What stands above, at the left.
      note: What stands below it, smaller.
    """
    # Here, for it takes half a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.transforms import IdentityTransform

    font = get_font(findfont(FontProperties()))

    def printable(text: str) -> str:
        """Returns a text with escapes for what the font lacks, or what is no Unicode at all."""
        return "".join(
            character
            if font.get_char_index(ord(character))
            else character.encode("unicode_escape").decode()
            for character in text
        )

    pictures = [[_resized(pixels) for pixels in panel.pixels] for panel in panels]
    side = pictures[0][0].shape[0]
    # Text of one size would be lost on a sheet of large pictures.
    scale = max(1.0, side / 150)
    header, line = round(_HEADER * scale), round(_CAPTION * scale)
    rows = -(-len(pictures[0]) // columns)
    width_of_panel = columns * (side + _GAP) - _GAP
    width = 2 * _MARGIN + len(panels) * (width_of_panel + _BETWEEN) - _BETWEEN
    height = header + rows * (side + line + _GAP) + _MARGIN

    sheet = np.full((height, width, 3), 255, np.uint8)
    texts = [
        _Text(_MARGIN, 10 * scale, printable(title), 12, _INK, "left"),
        _Text(_MARGIN, 31 * scale, note, 8, _FAINT, "left"),
    ]
    for number, (panel, shown) in enumerate(zip(panels, pictures, strict=True)):
        left = _MARGIN + number * (width_of_panel + _BETWEEN)
        texts.append(_Text(left, header - 19 * scale, panel.title, 9, _INK, "left"))
        for at, (one, caption) in enumerate(zip(shown, panel.captions, strict=True)):
            row, column = divmod(at, columns)
            x, y = left + column * (side + _GAP), header + row * (side + line + _GAP)
            sheet[y : y + side, x : x + side] = one
            fitted = _fitted(printable(caption), side / scale)
            texts.append(_Text(x + side / 2, y + side + 3 * scale, fitted, 7, _INK, "center"))

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=_BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    figure.figimage(sheet, origin="upper")
    for text in texts:
        figure.text(
            text.x,
            height - text.y,
            text.text,
            transform=IdentityTransform(),
            fontsize=text.size * scale,
            color=text.color,
            horizontalalignment=text.alignment,
            verticalalignment="top",
            parse_math=False,
        )
    png = io.BytesIO()
    canvas.print_png(png)
    return png.getvalue()


def _resized(pixels: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "side side 3"]:
    colours = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    side = len(colours)
    if side > _LARGEST:
        return np.asarray(Image.fromarray(colours).reduce(-(-side // _LARGEST)))
    times = max(1, round(_SMALLEST / side))
    return colours.repeat(times, axis=0).repeat(times, axis=1)


def _fitted(caption: str, width: float) -> str:
    most = int(width / _LETTER)
    return caption if len(caption) <= most else caption[: most - 1] + "…"
