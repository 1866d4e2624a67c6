"""Layers of a network, found in the equations (a jaxpr) of its forward pass."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend import core

from resnet_jax.errors import InputError
from resnet_jax.models import plain_form, variable_shapes

Kind = Literal["conv", "dense", "max_pool", "avg_pool", "matmul", "scale"]
Pair = tuple[int, int]

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


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer, for one image.

    Attributes:
      name: Path of the submodule that has the parameters ("stage2/block1/conv2"); without
        parameters, the submodule around the layer and its kind ("stem/max_pool").
      kind: "conv", "dense", "max_pool", "avg_pool"; "matmul" for a product of two activations;
        "scale" for parameters that are applied in place, as those of batch normalisation.
      output: Height, width and channels of the output, or its units.
      parameters: Number of parameters, those that earlier layers share left out.
      multiply_adds: Those of convolutions and matrix products, padding included.
      receptive_field: Rows and columns of the image that a position of the output depends on,
        counted beyond the border too.
      corner: First row and column of the image that the first position depends on, negative in the
        padding.
      jump: Rows and columns of the image from one position to the next; 0 if all depend on all.
      filter: Height, width and, of a convolution, its input channels; or `None`.
      stride: Rows and columns from one position of the filter to the next.
      padding: Rows before and after, columns before and after.
      dilation: Rows and columns from one pixel under the filter to the next.
      input: Height, width and channels of the input, or its units.
      sources: Names of the layers ("image" for the image) whose outputs the input consists of,
        rectified, normalised, added or concatenated.
      statistics: Whether it normalises, in training by statistics of the batch.
    """

    name: str
    kind: Kind
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int
    receptive_field: Pair
    corner: Pair = (0, 0)
    jump: Pair = (1, 1)
    filter: tuple[int, ...] | None = None
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    input: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()
    statistics: bool = False

    @property
    def activations(self) -> int:
        """The number of outputs that take memory of their own: 0 for a "scale"."""
        return 0 if self.kind == "scale" else math.prod(self.output)


@dataclasses.dataclass(frozen=True)
class Summary:
    """The layers of a network in the order of computation, and their totals.

    Attributes:
      image_shape: Height, width and channels of the image.
      layers: The layers.
      training_parameters: Number of further parameters that only training uses (those of
        auxiliary classifiers).
    """

    image_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    training_parameters: int

    @property
    def parameters(self) -> int:
        """The number of parameters that evaluation uses."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of convolutions and matrix products for an image."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activations(self) -> int:
        """The activations of an image: the image itself and the outputs of the layers.

        Operations that can be done in place (rectification, normalisation, addition) or that only
        rearrange (concatenation, the cells of pyramid pooling) do not count: VGG-16 has
        15,237,608, as in lectures.
        """
        return math.prod(self.image_shape) + sum(layer.activations for layer in self.layers)


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
    variables = variable_shapes(model, image_shape)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    forward = functools.partial(plain_form(model).apply, train=False)
    jaxpr = jax.make_jaxpr(forward)(variables, images).jaxpr
    sizes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }
    walk = _Walk({path: n for path, n in sizes.items() if path.startswith("params/")})
    image = _Value(field=(_Side(), _Side()), sources=("image",))
    walk.follow(jaxpr, [*(_Value(frozenset([path])) for path in sizes), image], ())
    return Summary(tuple(image_shape), tuple(walk.layers.values()), sum(walk.parameters.values()))


class _Side(NamedTuple):
    """Rows (or columns) of the image that a position depends on; negative in the padding.

    Position `i` depends on `first + i * jump` to `last + i * jump`; all positions depend on the
    same ones if `jump` is 0.
    """

    first: int = 0
    last: int = 0
    jump: int = 1

    def window(self, size: int, stride: int, padding: Pair = (0, 0), dilation: int = 1) -> "_Side":
        """Returns the side after a window that slides over the positions and the padding."""
        first = self.first - padding[0] * self.jump
        last = self.last + ((size - 1) * dilation - padding[0]) * self.jump
        return _Side(first, last, self.jump * stride)


_Field = tuple[_Side, _Side]


class _Window(NamedTuple):
    """The fields of a `Layer` from `filter` to `dilation`."""

    filter: tuple[int, ...]
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)


class _Value(NamedTuple):
    """The dependencies of an array: the paths of variables, or else a field of the image.

    With a field, `sources` are the last layers whose outputs it depends on.
    """

    variables: frozenset[str] = frozenset()
    field: _Field | None = None
    sources: tuple[str, ...] = ()


class _Walk:
    """A walk along the equations.

    Attributes:
      layers: The layers by name, in order.
      parameters: Number of parameters by path, of those that do not belong to a layer yet.
    """

    def __init__(self, parameters: dict[str, int]) -> None:
        self.layers: dict[str, Layer] = {}
        self.parameters = parameters

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
            fields = [operand.field for operand in operands]
            path = (*scope, *str(eqn.source_info.name_stack).split("/"))
            called = _called(eqn)
            if not any(fields):
                outputs = [_Value(variables)] * len(eqn.outvars)
            elif called is not None:
                outputs = self.follow(called, operands, path)
            else:
                field = _field(eqn, fields)
                sources = tuple(dict.fromkeys(name for value in operands for name in value.sources))
                layer = dataclasses.replace(_layer(eqn, fields, field), sources=sources)
                name = self._add(layer, variables, path)
                made = _Value(field=field, sources=(name,) if name else sources)
                outputs = [made] * len(eqn.outvars)
            known |= zip(eqn.outvars, outputs, strict=True)
        return [value(atom) for atom in jaxpr.outvars]

    def _add(self, layer: Layer, variables: Iterable[str], path: Sequence[str]) -> str | None:
        """Adds a layer and returns its name.

        Of a "scale" it adds the parameters to the layer of their module, and returns `None`.
        """
        parameters: dict[str, int] = {}
        for variable in sorted(variables):
            _, *modules, own = variable.split("/")
            module = "/".join(modules) or own
            number = self.parameters.pop(variable, 0)
            parameters[module] = parameters.get(module, 0) + number
        if layer.kind == "scale":
            statistics = any(variable.startswith("batch_stats/") for variable in variables)
            for name, number in sorted(parameters.items()):
                if number:
                    old = self.layers.get(name, layer)
                    self.layers[name] = dataclasses.replace(
                        old,
                        name=name,
                        parameters=number + old.parameters,
                        statistics=statistics or old.statistics,
                    )
            return None
        # The first is the network itself; names of methods and transformations have other signs.
        within = [name for name in path[1:] if name.isidentifier()]
        name = next(iter(parameters)) if len(parameters) == 1 else "/".join([*within, layer.kind])
        numbered = (f"{name}_{i}" for i in itertools.count(2))
        name = next(n for n in itertools.chain([name], numbered) if n not in self.layers)
        number = sum(parameters.values())
        self.layers[name] = dataclasses.replace(layer, name=name, parameters=number)
        return name


def _called(eqn: core.JaxprEqn) -> core.Jaxpr | None:
    """Returns the jaxpr that an equation calls with its operands (`jit`, remat), or `None`."""
    if eqn.primitive.name in ("scan", "while", "cond"):
        raise InputError(
            f"a network with a loop or branch ({eqn.primitive.name}) has no fixed layers"
        )
    shapes = list(map(_shape, eqn.invars))
    called = core.jaxprs_in_params(eqn.params)
    return next((jaxpr for jaxpr in called if list(map(_shape, jaxpr.invars)) == shapes), None)


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
        rows, columns = (config[:2] for config in params["padding_config"][-3:-1])
        return _Window((1, 1), (1, 1), (rows, columns))
    return None


def _field(eqn: core.JaxprEqn, fields: Sequence[_Field | None]) -> _Field:
    """Returns the receptive field of an equation's outputs: too large rather than too small.

    Maps have the shape [..., height, width, channels]; a value of another shape, such as the input
    of a fully connected layer, depends on all pixels that the maps before it depend on.
    """
    window = _window(eqn)
    if window is not None and fields[0] is not None and not any(fields[1:]):
        sizes, stride, padding, dilation = window
        rows, columns = (
            side.window(sizes[i], stride[i], padding[i], dilation[i])
            for i, side in enumerate(fields[0])
        )
        return rows, columns
    operands = [(f, _shape(atom)) for f, atom in zip(fields, eqn.invars, strict=True) if f]
    kept = all(_keeps_positions(eqn, shape) for _, shape in operands)

    def joined(axis: int) -> _Side:
        sides = [field[axis] for field, _ in operands]
        if not kept or len({side.jump for side in sides}) > 1:  # each depends on all positions
            sizes = [(1, 1, *shape)[axis - 3] for _, shape in operands]
            sides = [side.window(n, stride=0) for side, n in zip(sides, sizes, strict=True)]
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
            kind, window = "conv", _Window((1, 1, depth))
    elif name in _POOLS and len(shape) > 3:
        if "axes" not in params:
            slides = window is not None and window != _Window((1, 1))  # else over channels
            kind = _POOLS[name] if slides else "scale"
        elif {len(shape) - 3, len(shape) - 2} <= set(params["axes"]):
            kind, window = _POOLS[name], _Window(shape[-3:-1])
    sizes, corner, jump = zip(
        *((s.last - s.first + 1, s.first, s.jump) for s in field), strict=True
    )
    # Without the batch, and the groups of a normalisation.
    output, operand = output[1:][-3:], shape[1:][-3:]
    layer = Layer("", kind, output, 0, multiply_adds, sizes, corner, jump, input=operand)
    if kind == "scale" or window is None:
        return layer
    return dataclasses.replace(layer, **window._asdict())
