"""The leaves of a saved tree: names, types and shapes; and those that older checkpoints lack."""

from collections.abc import Iterable, Mapping

import jax
import numpy as np
from jaxtyping import ArrayLike, PyTree

from resnet_jax.errors import InputError

LATER: Mapping[str, np.generic] = {"training/window/bad_step": np.int32(0)}
"""Leaves that a state did not have from the beginning, with their values where they are missing.

They are in nested dictionaries.
"""


def describe(item: str, tree: PyTree) -> dict[str, str]:
    """Returns type and shape of each leaf, as in "float32[3,3,64,64]", by its path.

    A node that holds no leaves, such as an optimiser's empty state, counts as one that is "empty".

    Args:
      item: The name of the tree, with which the paths begin.
      tree: Arrays, or their `jax.ShapeDtypeStruct`s.

    Raises:
      TypeError: A leaf is not an array.
    """
    described = {}
    paths = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda node: not jax.tree.leaves(node)
    )
    for path, leaf in paths:
        name = "/".join([item, *(jax.tree_util.keystr((key,), simple=True) for key in path)])
        if not jax.tree.leaves(leaf):
            described[name] = "empty"
            continue
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
            raise TypeError(f"{name} is a {type(leaf).__name__} and only arrays can be saved")
        described[name] = f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
    return described


def refuse_difference(step: int, saved: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Refuses to take the leaves of checkpoint `step` for others; `LATER` ones may be missing.

    Raises:
      InputError: Names the first leaf that differs.
    """
    for name in [*sorted(saved), *here]:
        there, wanted = saved.get(name, "absent"), here.get(name, "absent")
        if name in LATER and name not in saved:
            there = describe(name, LATER[name])[name]
        if there != wanted:
            raise InputError(
                f"checkpoint {step} does not fit: {name} is {there} in it, {wanted} here"
            )


def without(names: Iterable[str], tree: PyTree) -> PyTree:
    """Returns a copy of a tree without some of the `LATER` leaves."""
    tree = jax.tree.map(lambda leaf: leaf, tree)
    for name in names:
        node, key = _locate(tree, name)
        del node[key]
    return tree


def fill(names: Iterable[str], tree: PyTree) -> None:
    """Gives a tree of the host the values of some of the `LATER` leaves."""
    for name in names:
        node, key = _locate(tree, name)
        node[key] = np.asarray(LATER[name])


def on_host(template: PyTree) -> PyTree:
    """Returns the template of numpy arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), template)


def place(
    step: int, items: Mapping[str, PyTree], templates: Mapping[str, PyTree]
) -> dict[str, PyTree]:
    """Returns trees of numpy arrays, with those on devices whose templates have a sharding.

    Raises:
      InputError: It would change a leaf: jax holds 64-bit types as 32 bits by default.
    """

    def put(leaf: np.ndarray, wanted: jax.ShapeDtypeStruct) -> np.ndarray | jax.Array:
        if wanted.sharding is None:
            return leaf
        return jax.make_array_from_callback(leaf.shape, wanted.sharding, leaf.__getitem__)

    placed = {name: jax.tree.map(put, items[name], templates[name]) for name in templates}
    for name, tree in placed.items():
        refuse_difference(step, describe(name, items[name]), describe(name, tree))
    return placed


def copy(tree: PyTree) -> PyTree:
    """Returns a copy of the tree, with numpy arrays for those that all devices have alike.

    orbax would have each replica write a slice of its own, and compile a program for each slice.
    """

    def alike(leaf: ArrayLike) -> ArrayLike:
        if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
            return leaf.addressable_data(0)
        return leaf

    tree = jax.tree.map(alike, tree)
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
            leaf.copy_to_host_async()  # all of them at once

    def own(leaf: ArrayLike) -> ArrayLike:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_replicated:
            return leaf.copy()
        return np.array(leaf)

    return jax.tree.map(own, tree)


def _locate(tree: PyTree, name: str) -> tuple[dict[str, PyTree], str]:
    _, *path, key = name.split("/")
    for part in path:
        tree = tree[part]
    return tree, key
