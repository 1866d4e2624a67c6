"""Pillow's resampling, compiled by numba: the same pixels, faster.

It needs the package `numba`; importing it raises ImportError where numba is missing or compiles
nothing. As in Pillow's Resample.c, the weights are whole numbers of 22 bits, columns are resampled
before rows, and the result of each is rounded to 8 bits.
"""

import numba
import numpy as np
from jaxtyping import UInt8, UInt32
from numba.extending import is_jitted

_BITS = 22
_HALF = np.int32(1 << (_BITS - 1))
_ROWS = 32
"""Rows whose columns are resampled together."""


@numba.njit
def _filter(x: float, support: float) -> float:
    x = abs(x)
    if support == 1.0:
        return 1.0 - x if x < 1.0 else 0.0
    a = -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    if x < 2.0:
        return (((x - 5) * x + 8) * x - 4) * a
    return 0.0


# Here, because another thread that imports this meanwhile gets all that was defined before.
if not is_jitted(_filter):  # NUMBA_DISABLE_JIT
    raise ImportError("numba compiles nothing here, and interpreted this would take seconds")


@numba.njit
def _weights(
    size: int, low: float, high: float, wanted: int, support: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the first pixel of each result, how many it has, and their weights.

    The weights are int32 [wanted, pixels].
    """
    # Pillow takes the box as float32, and goes on in float64.
    begin, end = np.float32(low), np.float32(high)
    scale = np.float64(np.float32(end - begin)) / wanted
    stretch = max(scale, 1.0)
    reach = support * stretch
    centres = np.float64(begin) + (np.arange(wanted) + 0.5) * scale
    firsts = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    counts = np.minimum((centres + reach + 0.5).astype(np.int64), size) - firsts
    weights = np.zeros((wanted, counts.max()), np.int32)
    exact = np.empty(counts.max(), np.float64)
    for i in range(wanted):
        total = 0.0
        for j in range(counts[i]):
            exact[j] = _filter((j + firsts[i] - centres[i] + 0.5) * (1.0 / stretch), support)
            total += exact[j]
        for j in range(counts[i]):
            weight = exact[j] / total if total != 0.0 else exact[j]
            rounding = -0.5 if weight < 0 else 0.5
            weights[i, j] = int(rounding + weight * (1 << _BITS))
    return firsts, counts, weights


@numba.njit
def _resample_rows(
    image: np.ndarray,
    firsts: np.ndarray,
    counts: np.ndarray,
    weights: np.ndarray,
    out: np.ndarray,
) -> None:
    """Resamples the bytes of an image from row to row; each row is in one piece."""
    sums = np.empty(image.shape[1], np.int32)
    for y in range(len(out)):
        sums[:] = _HALF
        for tap in range(counts[y]):
            weight, row = weights[y, tap], image[firsts[y] + tap]
            for i in range(len(sums)):
                sums[i] += np.int32(row[i]) * weight
        for i in range(len(sums)):
            out[y, i] = min(max(sums[i] >> np.int32(_BITS), np.int32(0)), np.int32(255))


@numba.njit(
    "void(uint32[:, :], float64, float64, float64, float64, float64, uint8[:, :, ::1])",
    nogil=True,
    cache=True,
)
def resample(
    image: UInt32[np.ndarray, "height width"],
    left: float,
    upper: float,
    right: float,
    lower: float,
    support: float,
    out: UInt8[np.ndarray, "tall wide 3"],
) -> None:
    """Writes a box of an image, in its pixels, resampled to the size of `out`.

    The bytes of a pixel are red, green, blue, and anything; `support` is the reach of the filter: 1
    for bilinear, 2 for bicubic.
    """
    height, width = image.shape
    tall, wide, _ = out.shape
    columns = _weights(width, left, right, wide, support)
    rows = _weights(height, upper, lower, tall, support)
    middle = np.empty((height, wide), np.uint32)
    # Transposed, so that columns are resampled as rows are, each in one piece of memory.
    block, narrow = np.empty((width, _ROWS), np.uint32), np.empty((wide, _ROWS), np.uint32)
    for start in range(0, height, _ROWS):
        count = min(_ROWS, height - start)
        for y in range(count):
            row = image[start + y]
            for x in range(width):
                block[x, y] = row[x]
        _resample_rows(block.view(np.uint8), *columns, narrow.view(np.uint8))
        middle[start : start + count] = narrow[:, :count].T
    short = np.empty((tall, 4 * wide), np.uint8)
    _resample_rows(middle.view(np.uint8), *rows, short)
    for y in range(tall):
        line, pixels = short[y], out[y]
        for x in range(wide):  # a slice without every fourth byte takes numba eight times as long
            pixels[x, 0], pixels[x, 1], pixels[x, 2] = line[4 * x], line[4 * x + 1], line[4 * x + 2]
