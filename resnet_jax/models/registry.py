"""The networks by name, and the outputs of their submodules by name."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Float, PyTree

from resnet_jax.errors import unknown
from resnet_jax.models import (
    alexnet,
    bn_inception,
    googlenet,
    lenet,
    prelu_net,
    resnet,
    vgg,
)
from resnet_jax.models.lowering import Lowering
from resnet_jax.models.variant import Variant

_VARIANTS: Mapping[str, Variant] = {
    **lenet.VARIANTS,
    **alexnet.VARIANTS,
    **vgg.VARIANTS,
    **googlenet.VARIANTS,
    **bn_inception.VARIANTS,
    **prelu_net.VARIANTS,
    **resnet.VARIANTS,
}


def list_models() -> list[str]:
    """Returns the names that `create_model` knows, sorted."""
    return sorted(_VARIANTS)


def model_options(name: str) -> frozenset[str]:
    """Returns the names of the options that `create_model` takes for this network."""
    return frozenset(_variant(name).options)


def option_types() -> Mapping[str, type]:
    """Returns the options that a config can hold, and their types, `object` for one of several."""
    types = {}
    for variant in _VARIANTS.values():
        for option, kind in variant.options.items():
            if kind is not None:
                types[option] = kind if types.get(option, kind) is kind else object
    return types


def image_shape(name: str) -> tuple[int, int, int]:
    """Returns the height, width and channels of the images that a network was designed for."""
    return _variant(name).image_shape


def create_model(name: str, *, lowering: Lowering = "plain", **options: Any) -> nn.Module:
    """Returns the network of this name.

    Args:
      name: One of `list_models()`.
      lowering: "plain", or "fast": convolutions and max-pools in the form that is fast on this
        platform, with the same numbers up to rounding (`resnet_jax.models.lowering`).
      **options: Fields of the module, such as `num_classes=10`, `shortcut="A"`,
        `dtype=jnp.bfloat16`; the class describes them.

    Raises:
      InputError: The name or an option is unknown, or an option has a wrong value.
    """
    return _variant(name).build(name, lowering=lowering, **options)


def variable_shapes(
    model: nn.Module, image_shape: tuple[int, int, int]
) -> dict[str, PyTree[jax.ShapeDtypeStruct]]:
    """Returns the shapes of a network's `params` and `batch_stats`, which may be empty.

    Nothing is computed. The image has a height, a width and channels.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = functools.partial(model.init, train=False)
    return {"batch_stats": {}, **jax.eval_shape(init, jax.random.key(0), images)}


def features(
    model: nn.Module,
    variables: Mapping[str, PyTree],
    images: Float[Array, "n h w c"],
    names: Sequence[str],
) -> dict[str, Float[Array, "n ..."]]:
    """Returns the outputs of named submodules by name, with batch normalisation as in evaluation.

    Under `jax.jit` only their own inputs are computed, not the head for example. For training that
    updates batch statistics, call `model.apply(..., train=True,
    mutable=["batch_stats", "intermediates"])` instead, see `ResNet`.

    Args:
      model: Any network of the registry, or another whose call takes `train`.
      variables: Its variables, as from `model.init`.
      images: The images, normalised.
      names: Paths of submodules: "stem", "stage1", ..., or deeper ones as "stage2/block1/conv2".

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


def _variant(name: str) -> Variant:
    if name not in _VARIANTS:
        raise unknown("model", name, _VARIANTS)
    return _VARIANTS[name]
