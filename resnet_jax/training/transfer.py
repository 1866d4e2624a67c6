"""Fine-tuning: variables of another network, and modules that are frozen."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, PyTree

from resnet_jax.errors import InputError, unknown
from resnet_jax.evaluation import Network, Variables
from resnet_jax.models import BatchNorm

# Fields that change what a network computes, but not the shapes of its parameters.
_FORM = ("shortcut", "stride_on", "pool_padding", "stem", "bn_epsilon")


def transfer(
    model: nn.Module, shapes: Variables, source: Network, new: Sequence[str]
) -> dict[str, Array]:
    """Returns the variables that a network takes from another, by path.

    All of the other's have to find their place among those of these `shapes`, but for those of the
    modules `new`, such as "head" or "stage4/block3", which start anew.

    Raises:
      InputError: The two networks compute something else with the same parameters, a variable is
        missing, left over or of another shape, or no module is called as `new` says.
    """
    for field in _FORM:
        here, there = getattr(model, field, None), getattr(source.model, field, None)
        if here != there:
            raise InputError(
                f"init.source holds a network with {field} {there!r} and this one has {here!r}: "
                f"the same parameters would compute something else; set model.{field}"
            )
    known_modules(new, shapes["params"], "init.new")
    trees = [
        cast(dict[str, Array], traverse_util.flatten_dict(tree, sep="/"))
        for tree in (shapes, source.variables)
    ]
    taken = {}
    for path in sorted({*trees[0], *trees[1]}):
        inside = path.partition("/")[2]  # without the collection
        if _is_below(inside, new):
            continue
        here, there = (
            f"of shape {tuple(tree[path].shape)}" if path in tree else "absent" for tree in trees
        )
        if here != there:
            raise InputError(
                f"init.source does not fit: {inside} is {there} in it, and {here} here; "
                "name in init.new the modules that are to start anew"
            )
        taken[path] = jnp.asarray(trees[1][path])
    return taken


def known_modules(modules: Sequence[str], params: PyTree, key: str) -> None:
    """Refuses names of modules that a network does not have.

    Raises:
      InputError: One of `modules` is the beginning of no parameter's name.
    """
    names = traverse_util.flatten_dict(params, sep="/")
    paths = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, 9)}
    for module in modules:
        if module not in paths:
            raise unknown(f"module of {key}", module, paths - set(names))


def freeze(
    optimizer: optax.GradientTransformation, modules: Sequence[str]
) -> optax.GradientTransformation:
    """Returns an optimiser that leaves the parameters of some modules as they are."""
    if not modules:
        return optimizer

    def labels(params: PyTree) -> PyTree:
        trained = jax.tree.map(lambda _: "trained", params)
        return _map_below(lambda _: "frozen", modules, trained)

    return optax.multi_transform({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)


def stop_gradients(params: PyTree, modules: Sequence[str]) -> PyTree:
    """Returns the parameters, those of some modules as constants: no backward pass comes there."""
    return _map_below(jax.lax.stop_gradient, modules, params)


def keep_statistics(new: PyTree, old: PyTree, modules: Sequence[str]) -> PyTree:
    """Returns the new running statistics, but of some modules the old ones.

    These are new only by the rounding of an average over replicas that all have the same.
    """
    return _map_below(lambda _, before: before, modules, new, old)


@contextlib.contextmanager
def frozen_statistics(modules: Sequence[str]):
    """Makes the batch normalisation of some modules use its running statistics in training."""

    def intercept(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        if (
            isinstance(module, BatchNorm)
            and context.method_name == "__call__"
            and _is_below("/".join(module.path), modules)
        ):
            kwargs = {**kwargs, "train": False}
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        yield


def _is_below(path: str, modules: Sequence[str]) -> bool:
    return any(path == module or path.startswith(f"{module}/") for module in modules)


def _map_below(
    function: Callable[..., Any], modules: Sequence[str], tree: PyTree, *others: PyTree
) -> PyTree:
    """Applies a function to the leaves of some modules; the others stay as they are in `tree`."""

    def apply(path: tuple, leaf: Any, *rest: Any) -> Any:
        below = _is_below(jax.tree_util.keystr(path, simple=True, separator="/"), modules)
        return function(leaf, *rest) if below else leaf

    return jax.tree_util.tree_map_with_path(apply, tree, *others)
