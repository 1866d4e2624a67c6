"""The outputs of a network's submodules, by name."""

from collections.abc import Mapping, Sequence
from typing import cast

from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Float, PyTree

from resnet_jax.errors import unknown


def features(
    model: nn.Module,
    variables: Mapping[str, PyTree],
    images: Float[Array, "n h w c"],
    names: Sequence[str],
) -> dict[str, Float[Array, "n ..."]]:
    """Returns the outputs of named submodules, with batch normalisation as in evaluation.

    Under `jax.jit` only their own inputs are computed, not the head for example. For training that
    updates batch statistics, call `model.apply(..., train=True,
    mutable=["batch_stats", "intermediates"])` instead, see `ResNet`.

    Args:
      model: Any network of the registry, or another whose call takes `train`.
      variables: Its variables, as from `model.init`.
      images: The images, normalised.
      names: Paths of submodules: "stem", "stage1", ..., or deeper ones as "stage2/block1/conv2".

    Returns:
      The outputs by name, in the order of `names`.

    Raises:
      InputError: A submodule is unknown.
    """
    paths = set()

    def is_wanted(module: nn.Module, method: str) -> bool:
        path = "/".join(module.path)
        if method == "__call__" and path:
            paths.add(path)
        return method == "__call__" and path in names

    _, sown = model.apply(
        variables, images, train=False, capture_intermediates=is_wanted, mutable=["intermediates"]
    )
    flat = traverse_util.flatten_dict(sown.get("intermediates", {}), sep="/")
    outputs = cast(dict[str, tuple[Array, ...]], flat)
    for name in names:
        if name not in paths:
            raise unknown("submodule", name, paths)
    return {name: outputs[f"{name}/__call__"][-1] for name in names}
