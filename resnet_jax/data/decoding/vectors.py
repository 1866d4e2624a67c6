"""Steps on 16 pixels at once, for functions that numba compiles.

Numba itself has no vectors; LLVM, which it compiles with, has them for every processor. Each step
is written in LLVM's instructions, and becomes a part of whatever calls it. It gets arrays, which
have to be as its docstring says: nothing is checked.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

PIXELS = 16
"""Pixels of a vector; each has 4 bytes."""

GROUP = 4
"""Columns that are turned at once."""

BITS = 22
"""Of a weight; that of 1.0 is 2**22."""

_BYTE, _WORD, _INDEX = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_LANES = 4 * PIXELS

_Value = Any
"""Of LLVM, which knows its type."""


class _Code:
    """Writes the instructions of a step; vectors may be anywhere in memory."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def product(self, one: _Value | int, other: _Value | int) -> _Value:
        """Returns the product of two whole numbers."""
        values = (ir.Constant(_INDEX, v) if isinstance(v, int) else v for v in (one, other))
        return self._builder.mul(*values)

    def after(self, place: _Value, count: _Value | int, size: _Value | int = 1) -> _Value:
        """Returns the place after so many things of so many bytes."""
        return self._builder.gep(place, [self.product(count, size)])

    def load(self, place: _Value, kind: Any) -> _Value:
        """Returns what is in a place."""
        return self._builder.load(self._builder.bitcast(place, kind.as_pointer()), align=1)

    def store(self, value: _Value, place: _Value) -> None:
        """Writes to a place."""
        self._builder.store(value, self._builder.bitcast(place, value.type.as_pointer()), align=1)

    def joined(self, vectors: Sequence[_Value]) -> _Value:
        """Returns one vector of 1, 2, 4, 8 or 16 of them."""
        if len(vectors) == 1:
            return vectors[0]
        half = len(vectors) // 2
        one, other = self.joined(vectors[:half]), self.joined(vectors[half:])
        return self._shuffled(one, other, range(2 * one.type.count))

    def picked(self, vector: _Value, lanes: Iterable[int]) -> _Value:
        """Returns the vector of these lanes of another."""
        return self._shuffled(vector, ir.Constant(vector.type, ir.Undefined), lanes)

    def _shuffled(self, one: _Value, other: _Value, lanes: Iterable[int]) -> _Value:
        numbers = list(lanes)
        mask = ir.Constant(ir.VectorType(_WORD, len(numbers)), numbers)
        return self._builder.shuffle_vector(one, other, mask)

    def weighted(
        self, pixels: _Value, apart: _Value | int, weights: _Value, taps: _Value
    ) -> _Value:
        """Returns the bytes of 16 pixels: sums over taps that are so many bytes apart."""
        build = self._builder
        wide, narrow = ir.VectorType(_WORD, _LANES), ir.VectorType(_BYTE, _LANES)
        half, shift, least, most = (
            ir.Constant(wide, [value] * _LANES) for value in (1 << (BITS - 1), BITS, 0, 255)
        )
        sums = cgutils.alloca_once_value(build, half)
        with cgutils.for_range(build, taps) as loop:
            tap = build.zext(self.load(self.after(pixels, loop.index, apart), narrow), wide)
            weight = self.load(self.after(weights, loop.index, 4), ir.VectorType(_WORD, 1))
            product = build.mul(tap, self.picked(weight, [0] * _LANES))
            build.store(build.add(build.load(sums), product), sums)
        total = build.ashr(build.load(sums), shift)
        total = build.select(build.icmp_signed("<", total, least), least, total)
        total = build.select(build.icmp_signed(">", total, most), most, total)
        return build.trunc(total, narrow)


def _step(write: Callable[..., None]) -> Any:
    """Makes a function of arrays and whole numbers of what writes its instructions.

    That gets the first byte's place of each array.
    """

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> _Value:
        values = [
            builder.bitcast(
                context.make_array(kind)(context, builder, value).data, _BYTE.as_pointer()
            )
            if isinstance(kind, types.Array)
            else value
            for kind, value in zip(signature.args, given, strict=True)
        ]
        write(_Code(builder), *values)
        return context.get_dummy_value()

    @functools.wraps(write)
    def typed(_context: Any, *kinds: Any) -> tuple[Any, Callable[..., _Value]]:
        taken = [kind if isinstance(kind, types.Array) else types.int64 for kind in kinds]
        return types.void(*taken), generate

    return intrinsic(typed)


@_step
def turn(code: _Code, image: _Value, rows: _Value, column: _Value, block: _Value) -> None:
    """Puts 4 columns of 16 rows into a block, where the pixels of a column are side by side.

    Args:
      code: What is written.
      image: uint32 [height, width], each row in one piece.
      rows: int64 [16], the byte of the image that each row begins with.
      column: The first column.
      block: uint32 [width, 16].
    """
    parts = []
    for row in range(PIXELS):
        start = code.after(image, code.load(code.after(rows, row, 8), _INDEX))
        parts.append(code.load(code.after(start, column, 4), ir.VectorType(_WORD, GROUP)))
    pixels = code.joined(parts)
    target = code.after(block, column, _LANES)
    for place in range(GROUP):
        turned = code.picked(pixels, range(place, GROUP * PIXELS, GROUP))
        code.store(turned, code.after(target, place, _LANES))


@_step
def across(
    code: _Code,
    block: _Value,
    columns: _Value,
    weights: _Value,
    taps: _Value,
    result: _Value,
    middle: _Value,
    rows: _Value,
) -> None:
    """Makes 4 pixels of each of 16 rows, side by side again.

    Args:
      code: What is written.
      block: uint32 [width, 16], of `turn`.
      columns: int64 [results], the first column that each is made of.
      weights: int32 [results, taps].
      taps: Number of taps.
      result: The first of the 4 results.
      middle: uint8, takes them.
      rows: int64 [16], the byte of `middle` that each row begins with.
    """
    parts = []
    for place in range(GROUP):
        column = code.load(code.after(code.after(columns, result, 8), place, 8), _INDEX)
        size = code.product(taps, 4)
        own = code.after(code.after(weights, result, size), place, size)
        parts.append(code.weighted(code.after(block, column, _LANES), _LANES, own, taps))
    pixels = code.joined(parts)
    for row in range(PIXELS):
        start = code.after(middle, code.load(code.after(rows, row, 8), _INDEX))
        lanes = [_LANES * place + 4 * row + byte for place in range(GROUP) for byte in range(4)]
        code.store(code.picked(pixels, lanes), code.after(start, result, 4))


@_step
def down(
    code: _Code,
    middle: _Value,
    first: _Value,
    apart: _Value,
    weights: _Value,
    result: _Value,
    taps: _Value,
    out: _Value,
    place: _Value,
) -> None:
    """Makes red, green and blue of 16 pixels of a row.

    Args:
      code: What is written.
      middle: uint8, of `across`.
      first: The byte of it that the first tap begins with.
      apart: Bytes from a tap to the next.
      weights: int32 [results, taps].
      result: The row's number among the results.
      taps: Number of taps.
      out: uint8, takes the pixels.
      place: The byte of it where they begin.
    """
    own = code.after(weights, result, code.product(taps, 4))
    pixels = code.weighted(code.after(middle, first), apart, own, taps)
    colours = [lane for lane in range(_LANES) if lane % 4 != 3]
    code.store(code.picked(pixels, colours), code.after(out, place))
