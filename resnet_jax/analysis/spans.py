"""Which pixels a value depends on, followed through the equations of a jaxpr."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from jax.extend.core import JaxprEqn, Literal, Var


@dataclasses.dataclass(frozen=True)
class Span:
    """The pixels of one side of the image that the positions along an axis depend on.

    Position `i` depends on the pixels `first + i * step` to `last + i * step`; those outside of
    the image are padding.

    Attributes:
      first: First pixel of position 0.
      last: Last pixel of position 0.
      step: Pixels from one position to the next; 0 if all depend on the same.
      axis: The axis, or `None` if no axis lays out this side any more (and `step` is 0).
    """

    first: int = 0
    last: int = 0
    step: int = 0
    axis: int | None = None

    @property
    def size(self) -> int:
        """The number of pixels: a side of the receptive field."""
        return self.last - self.first + 1

    def at(self, axis: int) -> "Span":
        """Returns the same along another axis."""
        return dataclasses.replace(self, axis=axis)

    def window(
        self, size: int = 1, *, stride: int = 1, start: int = 0, dilation: int = 1
    ) -> "Span":
        """Returns the span of a window that slides along, from position `start` on."""
        first = self.first + start * self.step
        last = self.last + (start + (size - 1) * dilation) * self.step
        return Span(first, last, self.step * stride, self.axis)

    def whole(self, shape: Sequence[int]) -> "Span":
        """Returns the span of what depends on every position along the axis of this shape."""
        if self.axis is None:
            return self
        return Span(self.first, self.last + (shape[self.axis] - 1) * self.step)


Field = tuple[Span, Span]
"""The spans of the rows and of the columns of the image: a receptive field."""


def shape_of(atom: Var | Literal) -> tuple[int, ...]:
    """Returns the shape of an equation's input or output."""
    return getattr(atom.aval, "shape", ())


def propagate(eqn: JaxprEqn, fields: Sequence[Field | None]) -> list[Field]:
    """Returns the fields of an equation's outputs, too large rather than too small.

    Args:
      eqn: An equation without another jaxpr to follow.
      fields: Those of its inputs; `None` for those that do not depend on the image, which is not
        all of them.
    """
    rule = _RULES.get(eqn.primitive.name, _same_shape)

    def side(i: int, output: int) -> Span:
        spans = [
            rule(eqn, field[i], operand, output)
            for operand, field in enumerate(fields)
            if field is not None
        ]
        return _union(spans, shape_of(eqn.outvars[output]))

    return [(side(0, output), side(1, output)) for output in range(len(eqn.outvars))]


def _union(spans: Sequence[Span], shape: Sequence[int]) -> Span:
    """Returns the span of what depends on all of several of this shape, position by position."""
    axes = [span.axis for span in spans if span.axis is not None]
    if len({(span.step, span.axis) for span in spans}) > 1:
        # Some move along and others do not, as the channel weights of squeeze and excitation.
        spans = [span.whole(shape) for span in spans]
    first, last = min(span.first for span in spans), max(span.last for span in spans)
    return Span(first, last, spans[0].step, axes[0] if axes else None)


# Each rule returns what an output depends on through one of the operands.


def _same_shape(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    shape = shape_of(eqn.invars[operand])
    return span if shape == shape_of(eqn.outvars[output]) else span.whole(shape)


def _anywhere(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    return span.whole(shape_of(eqn.invars[operand]))


def _convolution(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    numbers, params = eqn.params["dimension_numbers"], eqn.params
    image, kernel = map(shape_of, eqn.invars)
    if operand == 1:
        return span.whole(kernel)
    if span.axis not in numbers.lhs_spec[2:]:
        return span.whole(image)
    i = numbers.lhs_spec.index(span.axis)
    if params["lhs_dilation"][i - 2] != 1:
        return span.whole(image)
    moved = span.window(
        kernel[numbers.rhs_spec[i]],
        stride=params["window_strides"][i - 2],
        start=-params["padding"][i - 2][0],
        dilation=params["rhs_dilation"][i - 2],
    )
    return moved.at(numbers.out_spec[i])


def _pool(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    params, axis = eqn.params, span.axis
    if axis is None or params["base_dilation"][axis] != 1:
        return span.whole(shape_of(eqn.invars[operand]))
    return span.window(
        params["window_dimensions"][axis],
        stride=params["window_strides"][axis],
        start=-params["padding"][axis][0],
        dilation=params["window_dilation"][axis],
    )


def _matrix_product(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    contracted, batch = (both[operand] for both in eqn.params["dimension_numbers"])
    ranks = [len(shape_of(variable)) for variable in eqn.invars]
    if span.axis is None or span.axis in contracted:
        return span.whole(shape_of(eqn.invars[operand]))
    if span.axis in batch:
        return span.at(batch.index(span.axis))
    free = [axis for axis in range(ranks[operand]) if axis not in (*contracted, *batch)]
    before = len(batch) if operand == 0 else ranks[0] - len(contracted)
    return span.at(before + free.index(span.axis))


def _without(axes: str) -> Callable[[JaxprEqn, Span, int, int], Span]:
    def rule(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
        if span.axis is None or span.axis in eqn.params[axes]:
            return span.whole(shape_of(eqn.invars[operand]))
        return span.at(span.axis - sum(axis < span.axis for axis in eqn.params[axes]))

    return rule


def _broadcast(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    if span.axis is None:
        return span
    shape = shape_of(eqn.invars[operand])
    axis = eqn.params["broadcast_dimensions"][span.axis]
    grown = shape[span.axis] != eqn.params["shape"][axis]
    return (span.whole(shape) if grown else span).at(axis)


def _reshape(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    old, new = shape_of(eqn.invars[operand]), eqn.params["new_sizes"]
    if span.axis is not None:
        here = (math.prod(old[: span.axis]), old[span.axis])
        same = [axis for axis in range(len(new)) if (math.prod(new[:axis]), new[axis]) == here]
        if old[span.axis] == 1:  # any axis of length 1 would do: only leading ones come and go
            same = [axis for axis in same if axis == span.axis + len(new) - len(old) > 0]
        if same:
            return span.at(same[0])
    return span.whole(old)


def _transpose(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    return span if span.axis is None else span.at(eqn.params["permutation"].index(span.axis))


def _slice(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    if span.axis is None:
        return span
    strides = eqn.params["strides"]
    stride = 1 if strides is None else strides[span.axis]
    return span.window(stride=stride, start=eqn.params["start_indices"][span.axis])


def _dynamic_slice(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    shape = shape_of(eqn.invars[operand])
    if span.axis is None or eqn.params["slice_sizes"][span.axis] == shape[span.axis]:
        return span
    return span.whole(shape).at(span.axis)


def _pad(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    if span.axis is None:
        return span
    before, _, interior = eqn.params["padding_config"][span.axis]
    if interior:
        return span.whole(shape_of(eqn.invars[operand]))
    return span.window(start=-before)


def _concatenate(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    axis = eqn.params["dimension"]
    if span.axis != axis:
        return span
    return span.window(start=-sum(shape_of(before)[axis] for before in eqn.invars[:operand]))


def _stack(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    return span if span.axis is None else span.at(span.axis + (eqn.params["axis"] <= span.axis))


def _split(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
    if span.axis != eqn.params["axis"]:
        return span
    return span.window(start=sum(itertools.islice(eqn.params["sizes"], output)))


def _mixed(axes: str) -> Callable[[JaxprEqn, Span, int, int], Span]:
    def rule(eqn: JaxprEqn, span: Span, operand: int, output: int) -> Span:
        mixed = eqn.params[axes]
        if span.axis is None or span.axis not in (mixed if isinstance(mixed, tuple) else (mixed,)):
            return span
        return span.whole(shape_of(eqn.invars[operand])).at(span.axis)

    return rule


_RULES: Mapping[str, Callable[[JaxprEqn, Span, int, int], Span]] = {
    "conv_general_dilated": _convolution,
    "dot_general": _matrix_product,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
    "split": _split,
    "squeeze": _without("dimensions"),
    "rev": _mixed("dimensions"),
    "sort": _mixed("dimension"),
    **dict.fromkeys(("reduce_window_max", "reduce_window_sum", "reduce_window_min"), _pool),
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin"),
        _without("axes"),
    ),
    **dict.fromkeys(("gather", "scatter", "scatter-add", "fft"), _anywhere),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _mixed("axis")),
}
