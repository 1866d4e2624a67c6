"""Follows the image through the equations of a network's forward pass, and meets its layers."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend import core

from resnet_jax.analysis.layers import Layer, Summary
from resnet_jax.analysis.recognize import applied_in_place, recognize
from resnet_jax.analysis.spans import Field, Span, propagate, shape_of
from resnet_jax.errors import InputError


def summarize(model: nn.Module, image_shape: tuple[int, int, int]) -> Summary:
    """Returns the layers of a network in evaluation; nothing is computed.

    They are found in the equations that the network consists of, whatever modules these are from.

    Args:
      model: Any network of the registry, or another whose call takes `train`.
      image_shape: Height, width and channels of an image.

    Raises:
      InputError: There is no such image, the network refuses it, or it has a loop whose body
        stands for several layers (`jax.lax.scan`).
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
        _Leaf.of([str(getattr(key, "key", key)) for key in path], leaf.size)
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    ]
    tracer = _Tracer()
    image = _Value(field=(Span(step=1, axis=1), Span(step=1, axis=2)))
    tracer.follow(jaxpr, [*(_Value(frozenset([leaf])) for leaf in leaves), image], ())
    unused = set(leaves) - tracer.counted
    return Summary(
        tuple(image_shape), tuple(tracer.layers.values()), sum(leaf.parameters for leaf in unused)
    )


class _Leaf(NamedTuple):
    """A variable: its module's path, its own path, and how many parameters it is."""

    module: str
    path: str
    parameters: int

    @classmethod
    def of(cls, path: Sequence[str], size: int) -> "_Leaf":
        collection, *modules, name = path
        return cls("/".join(modules) or name, "/".join(path), size * (collection == "params"))


class _Value(NamedTuple):
    """What a value depends on.

    Attributes:
      leaves: Variables, if it depends on nothing else.
      field: Pixels of the image, if it depends on any.
    """

    leaves: frozenset[_Leaf] = frozenset()
    field: Field | None = None


class _Tracer:
    """Follows values through equations.

    Attributes:
      layers: The layers that were met, by name, in order.
      counted: The variables whose parameters a layer has.
    """

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}
        self.counted: set[_Leaf] = set()

    def follow(
        self, jaxpr: core.Jaxpr, inputs: Sequence[_Value], scope: tuple[str, ...]
    ) -> list[_Value]:
        """Returns the values of the outputs; `scope` is the path of the modules around it."""
        known = dict(zip(jaxpr.invars, inputs, strict=True))

        def value(atom: core.Var | core.Literal) -> _Value:
            return _Value() if isinstance(atom, core.Literal) else known.get(atom, _Value())

        for eqn in jaxpr.eqns:
            operands = [value(atom) for atom in eqn.invars]
            fields = [operand.field for operand in operands]
            leaves = frozenset().union(*(operand.leaves for operand in operands))
            path = (*scope, *str(eqn.source_info.name_stack).split("/"))
            called = _called(eqn)
            if not any(fields):
                outputs = [_Value(leaves)] * len(eqn.outvars)
            elif called is not None:
                outputs = self.follow(called, operands, path)
            else:
                found = propagate(eqn, fields)
                self._meet(eqn, fields, leaves, found[0], path)
                outputs = [_Value(field=field) for field in found]
            known |= zip(eqn.outvars, outputs, strict=True)
        return [value(atom) for atom in jaxpr.outvars]

    def _meet(
        self,
        eqn: core.JaxprEqn,
        inputs: Sequence[Field | None],
        leaves: frozenset[_Leaf],
        field: Field,
        path: Sequence[str],
    ) -> None:
        """Adds the layer that the equation is, or is a part of, if any."""
        modules = sorted({leaf.module for leaf in leaves})
        layer = recognize(eqn, inputs, field)
        if layer is not None:
            # The first is the network itself; methods and transformations are no identifiers.
            within = [name for name in path[1:] if name.isidentifier()]
            name = modules[0] if len(modules) == 1 else "/".join([*within, layer.kind])
            numbered = (f"{name}_{i}" for i in itertools.count(2))
            name = next(n for n in itertools.chain([name], numbered) if n not in self.layers)
            parameters = self._count(leaves)
            self.layers[name] = dataclasses.replace(layer, name=name, parameters=parameters)
            return
        for name in modules:
            parameters = self._count(leaf for leaf in leaves if leaf.module == name)
            if parameters:
                layer = self.layers.get(name, applied_in_place(eqn, field))
                parameters += layer.parameters
                self.layers[name] = dataclasses.replace(layer, name=name, parameters=parameters)

    def _count(self, leaves: Iterable[_Leaf]) -> int:
        """Returns the number of parameters that no layer has yet."""
        new = set(leaves) - self.counted
        self.counted |= new
        return sum(leaf.parameters for leaf in new)


def _called(eqn: core.JaxprEqn) -> core.Jaxpr | None:
    """Returns the jaxpr that an equation calls with its operands (`jit`, remat), or `None`."""
    if eqn.primitive.name in ("scan", "while", "cond"):
        raise InputError(
            f"a network with a loop or branch ({eqn.primitive.name}) has no fixed layers"
        )
    shapes = list(map(shape_of, eqn.invars))
    for jaxpr in core.jaxprs_in_params(eqn.params):
        if list(map(shape_of, jaxpr.invars)) == shapes:
            return jaxpr
    return None
