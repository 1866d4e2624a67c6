"""Which layer an equation of a jaxpr is."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from jax.extend.core import JaxprEqn

from resnet_jax.analysis.layers import Kind, Layer
from resnet_jax.analysis.spans import Field, shape_of

_POOLS: Mapping[str, Kind] = {
    "reduce_window_max": "max_pool",
    "reduce_window_sum": "avg_pool",
    "reduce_max": "max_pool",
    "reduce_sum": "avg_pool",
}


def applied_in_place(eqn: JaxprEqn, field: Field) -> Layer:
    """Returns the layer, without name and parameters, whose parameters the equation applies."""
    rows, columns = field
    return Layer(
        name="",
        kind="scale",
        output=shape_of(eqn.outvars[0])[1:][-3:],  # without the batch, and the groups of a norm
        parameters=0,
        multiply_adds=0,
        receptive_field=(rows.size, columns.size),
    )


def recognize(eqn: JaxprEqn, inputs: Sequence[Field | None], field: Field) -> Layer | None:
    """Returns the layer that an equation is, without name and parameters, or `None`.

    Args:
      eqn: The equation, for a batch of one image.
      inputs: Fields of its inputs.
      field: The field of its output.
    """
    layer, name = applied_in_place(eqn, field), eqn.primitive.name
    if name == "conv_general_dilated":
        return _convolution(eqn, layer)
    if name == "dot_general":
        return _matrix_product(eqn, inputs, field, layer)
    if name in _POOLS and inputs[0] is not None:
        rows, columns = (span.axis for span in inputs[0])
        if rows is not None and columns is not None:
            return _pool(eqn, (rows, columns), dataclasses.replace(layer, kind=_POOLS[name]))
    return None


def _convolution(eqn: JaxprEqn, layer: Layer) -> Layer:
    params, kernel = eqn.params, shape_of(eqn.invars[1])
    _, depth, *spatial = (kernel[axis] for axis in params["dimension_numbers"].rhs_spec)
    return dataclasses.replace(
        layer,
        kind="conv",
        multiply_adds=math.prod((*layer.output, *spatial, depth)),
        filter=(*spatial, depth),
        stride=tuple(params["window_strides"]),
        padding=tuple(params["padding"]),
        dilation=tuple(params["rhs_dilation"]),
    )


def _matrix_product(
    eqn: JaxprEqn, inputs: Sequence[Field | None], field: Field, layer: Layer
) -> Layer:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    depth = math.prod(shape_of(eqn.invars[0])[axis] for axis in contracted)
    multiply_adds = math.prod(shape_of(eqn.outvars[0])) * depth
    kind, filter_ = "dense", None
    if None not in inputs:
        kind = "matmul"
    elif None not in (field[0].axis, field[1].axis):  # at every pixel
        kind, filter_ = "conv", (1, 1, depth)
    return dataclasses.replace(layer, kind=kind, multiply_adds=multiply_adds, filter=filter_)


def _pool(eqn: JaxprEqn, sides: tuple[int, int], layer: Layer) -> Layer | None:
    params = eqn.params
    if "window_dimensions" not in params:  # a reduction; it is a layer if nothing is left to slide
        shape = shape_of(eqn.invars[0])
        pooled = tuple(shape[axis] for axis in sides)
        everything = set(sides) <= set(params["axes"])
        return dataclasses.replace(layer, filter=pooled) if everything else None
    filter_, stride, padding, dilation = (
        tuple(params[key][axis] for axis in sides)
        for key in ("window_dimensions", "window_strides", "padding", "window_dilation")
    )
    if max(*filter_, *stride) == 1:  # over channels
        return None
    return dataclasses.replace(
        layer, filter=filter_, stride=stride, padding=padding, dilation=dilation
    )
