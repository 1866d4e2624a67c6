"""Layers of a network, found in the equations (a jaxpr) of its forward pass."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend import core

from resnet_jax.analysis.layers import Kind, Layer, Pair, Summary
from resnet_jax.errors import InputError

_POOLS: Mapping[str, Kind] = {
    "reduce_window_max": "max_pool",
    "reduce_window_sum": "avg_pool",
    "reduce_max": "max_pool",
    "reduce_sum": "avg_pool",
}
_MIXING = frozenset(
    {
        *("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "fft", "gather", "rev"),
        *("reduce_window_max", "reduce_window_min", "reduce_window_sum", "conv_general_dilated"),
        *("scatter", "scatter-add", "sort", "transpose"),
    }
)
"""Operations that may keep the shape of maps, but not the positions in them."""


def summarize(model: nn.Module, image_shape: tuple[int, int, int]) -> Summary:
    """Returns the layers of a network in evaluation, without computing anything.

    Args:
      model: Any network of the registry, or another module whose call takes `train`.
      image_shape: Height, width and channels of an image.

    Raises:
      InputError: The image's shape is wrong, the network refuses it, or the network has a loop
        whose body stands for several layers (`jax.lax.scan`).
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise InputError(
            f"the image's shape is {image_shape}; it must be a height, a width and channels"
        )
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)
    jaxpr = jax.make_jaxpr(functools.partial(model.apply, train=False))(variables, images).jaxpr
    leaves = [
        _Variable.of([str(getattr(key, "key", key)) for key in path], leaf.size)
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    ]
    walk = _Walk()
    image = _Value(field=(_Side(), _Side()))
    walk.follow(jaxpr, [*(_Value(frozenset([leaf])) for leaf in leaves), image], ())
    unused = set(leaves) - walk.counted
    return Summary(
        tuple(image_shape), tuple(walk.layers.values()), sum(leaf.parameters for leaf in unused)
    )


class _Side(NamedTuple):
    """One side of the receptive fields of maps, in pixels.

    Position `i` depends on the pixels `first + i * jump` to `last + i * jump`.

    Attributes:
      first: First pixel of position 0; negative in the padding.
      last: Last pixel of position 0.
      jump: Pixels from one position to the next; 0 if all positions depend on the same pixels.
    """

    first: int = 0
    last: int = 0
    jump: int = 1

    def window(self, size: int, stride: int, padding: int = 0, dilation: int = 1) -> "_Side":
        """Returns the side after a window that slides over the positions and the padding."""
        reach = (size - 1) * dilation
        first, last = (self.first - padding * self.jump, self.last + (reach - padding) * self.jump)
        return _Side(first, last, self.jump * stride)

    def everywhere(self, positions: int) -> "_Side":
        """Returns the side of a value that depends on all positions."""
        return self.window(positions, stride=0)

    @property
    def size(self) -> int:
        """The number of pixels: a side of the receptive field."""
        return self.last - self.first + 1


_Field = tuple[_Side, _Side]


class _Window(NamedTuple):
    """A window that slides over maps, by rows and columns."""

    filter: tuple[int, ...]
    stride: Pair
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)


class _Variable(NamedTuple):
    """A variable: the path of its module, its own path and its number of parameters."""

    module: str
    path: str
    parameters: int

    @classmethod
    def of(cls, path: Sequence[str], size: int) -> "_Variable":
        collection, *modules, name = path
        return cls("/".join(modules) or name, "/".join(path), size * (collection == "params"))


class _Value(NamedTuple):
    """Dependencies of an array: variables if it depends on nothing else, or pixels of the image."""

    variables: frozenset[_Variable] = frozenset()
    field: _Field | None = None


class _Walk:
    """A walk along the equations.

    Attributes:
      layers: The layers by name, in order.
      counted: The variables whose parameters belong to a layer.
    """

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}
        self.counted: set[_Variable] = set()

    def follow(
        self, jaxpr: core.Jaxpr, inputs: Sequence[_Value], scope: tuple[str, ...]
    ) -> list[_Value]:
        """Returns the values of the outputs; `scope` is the path of the modules around it."""
        known = dict(zip(jaxpr.invars, inputs, strict=True))

        def value(atom: core.Var | core.Literal) -> _Value:
            return _Value() if isinstance(atom, core.Literal) else known.get(atom, _Value())

        for eqn in jaxpr.eqns:
            operands = [value(atom) for atom in eqn.invars]
            variables = frozenset().union(*(operand.variables for operand in operands))
            path = (*scope, *str(eqn.source_info.name_stack).split("/"))
            called = _called(eqn)
            if not any(operand.field for operand in operands):
                outputs = [_Value(variables)] * len(eqn.outvars)
            elif called is not None:
                outputs = self.follow(called, operands, path)
            else:
                field = _field(eqn, [operand.field for operand in operands])
                layer = _layer(eqn, [operand.field for operand in operands], field)
                self._add(layer, variables, path)
                outputs = [_Value(field=field)] * len(eqn.outvars)
            known |= zip(eqn.outvars, outputs, strict=True)
        return [value(atom) for atom in jaxpr.outvars]

    def _add(self, layer: Layer, variables: frozenset[_Variable], path: Sequence[str]) -> None:
        """Adds a layer, or the parameters that an equation applies to the layer of their module."""
        modules = sorted({variable.module for variable in variables})
        if layer.kind == "scale":
            for name in modules:
                parameters = self._count(v for v in variables if v.module == name)
                if parameters:
                    old = self.layers.get(name, layer)
                    parameters += old.parameters
                    self.layers[name] = dataclasses.replace(old, name=name, parameters=parameters)
            return
        # The first is the network itself; names of methods and transformations have other signs.
        within = [name for name in path[1:] if name.isidentifier()]
        name = modules[0] if len(modules) == 1 else "/".join([*within, layer.kind])
        numbered = (f"{name}_{i}" for i in itertools.count(2))
        name = next(n for n in itertools.chain([name], numbered) if n not in self.layers)
        parameters = self._count(variables)
        self.layers[name] = dataclasses.replace(layer, name=name, parameters=parameters)

    def _count(self, variables: Iterable[_Variable]) -> int:
        """Returns the number of parameters that do not belong to a layer yet."""
        new = set(variables) - self.counted
        self.counted |= new
        return sum(variable.parameters for variable in new)


def _called(eqn: core.JaxprEqn) -> core.Jaxpr | None:
    """Returns the jaxpr that an equation calls with its operands (`jit`, remat), or `None`."""
    if eqn.primitive.name in ("scan", "while", "cond"):
        raise InputError(
            f"a network with a loop or branch ({eqn.primitive.name}) has no fixed layers"
        )
    shapes = list(map(_shape, eqn.invars))
    for jaxpr in core.jaxprs_in_params(eqn.params):
        if list(map(_shape, jaxpr.invars)) == shapes:
            return jaxpr
    return None


def _shape(atom: core.Var | core.Literal) -> tuple[int, ...]:
    return getattr(atom.aval, "shape", ())


def _window(eqn: core.JaxprEqn) -> _Window | None:
    """Returns the window of a convolution, pooling, slice or padding of maps, `None` for others."""
    name, params, shape = eqn.primitive.name, eqn.params, _shape(eqn.invars[0])
    if name == "conv_general_dilated":
        numbers, kernel = params["dimension_numbers"], _shape(eqn.invars[1])
        layouts = {numbers.lhs_spec, numbers.out_spec}
        if layouts != {(0, 3, 1, 2)} or params["lhs_dilation"] != (1, 1):
            return None
        _, depth, *size = (kernel[axis] for axis in numbers.rhs_spec)
        keys = ("window_strides", "padding", "rhs_dilation")
        return _Window((*size, depth), *(tuple(params[key]) for key in keys))
    if len(shape) < 4:
        return None
    if name.startswith("reduce_window") and set(params["base_dilation"]) == {1}:
        keys = ("window_dimensions", "window_strides", "padding", "window_dilation")
        return _Window(*(tuple(params[key][-3:-1]) for key in keys))
    if name == "slice":
        strides = params["strides"] or (1,) * len(shape)
        row, column = params["start_indices"][-3:-1]
        return _Window((1, 1), (strides[-3], strides[-2]), ((-row, 0), (-column, 0)))
    if name == "pad" and not any(interior for _, _, interior in params["padding_config"]):
        rows, columns = (tuple(config[:2]) for config in params["padding_config"][-3:-1])
        return _Window((1, 1), (1, 1), (rows, columns))
    return None


def _field(eqn: core.JaxprEqn, fields: Sequence[_Field | None]) -> _Field:
    """Returns the receptive field of an equation's outputs: too large rather than too small.

    Maps have the shape [..., height, width, channels]; a value of another shape, such as the input
    of a fully connected layer, depends on all pixels that the maps before it depend on.
    """
    window = _window(eqn)
    if window is not None and fields[0] is not None and not any(fields[1:]):
        rows, columns = (
            fields[0][i].window(
                window.filter[i], window.stride[i], window.padding[i][0], window.dilation[i]
            )
            for i in (0, 1)
        )
        return rows, columns
    operands = [
        (field, _shape(atom)) for field, atom in zip(fields, eqn.invars, strict=True) if field
    ]
    kept = all(_keeps_positions(eqn, shape) for _, shape in operands)

    def joined(number: int) -> _Side:
        sides = [field[number] for field, _ in operands]
        if not kept or len({side.jump for side in sides}) > 1:
            sides = [
                side.everywhere(shape[number - 3] if side.jump else 1)
                for side, (_, shape) in zip(sides, operands, strict=True)
            ]
        first, last = min(side.first for side in sides), max(side.last for side in sides)
        return _Side(first, last, sides[0].jump)

    return joined(0), joined(1)


def _keeps_positions(eqn: core.JaxprEqn, shape: tuple[int, ...]) -> bool:
    """Whether a position of the output depends on that position alone of an input of this shape."""
    name, params, output = eqn.primitive.name, eqn.params, _shape(eqn.outvars[0])
    if min(len(shape), len(output)) < 4 or name in _MIXING:
        return False
    if name == "dot_general":
        (contracted, _), (batch, _) = params["dimension_numbers"]
        if batch or tuple(contracted) != (len(shape) - 1,):
            return False
    return shape[-3:-1] == output[-3:-1] and (name != "reshape" or shape[-1] == output[-1])


def _layer(eqn: core.JaxprEqn, fields: Sequence[_Field | None], field: _Field) -> Layer:
    """Returns the layer that an equation is, without name and parameters, by default a "scale"."""
    name, params, output = eqn.primitive.name, eqn.params, _shape(eqn.outvars[0])
    shape, window = _shape(eqn.invars[0]), _window(eqn)
    kind: Kind = "scale"
    multiply_adds = 0
    if name == "conv_general_dilated":
        kind, kernel = "conv", _shape(eqn.invars[1])
        filters = kernel[params["dimension_numbers"].rhs_spec[0]]
        multiply_adds = math.prod(output) * math.prod(kernel) // filters
    elif name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        depth = math.prod(shape[axis] for axis in contracted)
        multiply_adds = math.prod(output) * depth
        if None not in fields:
            kind = "matmul"
        elif len(output) < 4:
            kind = "dense"
        else:  # at every pixel
            kind, window = "conv", _Window((1, 1, depth), (1, 1))
    elif name in _POOLS and len(shape) > 3:
        if "axes" not in params:
            slides = window is not None and max(window.filter + window.stride) > 1
            kind = _POOLS[name] if slides else "scale"  # over channels
        elif {len(shape) - 3, len(shape) - 2} <= set(params["axes"]):
            kind, window = _POOLS[name], _Window(shape[-3:-1], (1, 1))
    if kind == "scale" or window is None:
        window = _Window((), (1, 1))
    return Layer(
        name="",
        kind=kind,
        output=output[1:][-3:],  # without the batch, and the groups of a normalisation
        parameters=0,
        multiply_adds=multiply_adds,
        receptive_field=(field[0].size, field[1].size),
        filter=window.filter or None,
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
    )
