"""The networks by name."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from resnet_jax.errors import unknown
from resnet_jax.models import (
    alexnet,
    bn_inception,
    googlenet,
    lenet,
    prelu_net,
    resnet,
    vgg,
    zfnet,
)
from resnet_jax.models.variant import Variant

_VARIANTS: Mapping[str, Variant] = {
    **lenet.VARIANTS,
    **alexnet.VARIANTS,
    **zfnet.VARIANTS,
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
    """Returns the names of the options that `create_model` takes for this network.

    Raises:
      InputError: The name is unknown.
    """
    return frozenset(_variant(name).options)


def option_types() -> Mapping[str, type]:
    """Returns the options of all networks that a config can hold, and the types of their values.

    The types are bool, int, float, str, tuple, and `object` where a value is of one of several.
    """
    types = {}
    for variant in _VARIANTS.values():
        for option, kind in variant.options.items():
            if kind is not None:
                types[option] = kind if types.get(option, kind) is kind else object
    return types


def image_shape(name: str) -> tuple[int, int, int]:
    """Returns the height, width and channels of the images that a network was designed for.

    Raises:
      InputError: The name is unknown.
    """
    return _variant(name).image_shape


def create_model(name: str, **options: Any) -> nn.Module:
    """Returns the network of this name.

    Args:
      name: One of `list_models()`.
      **options: Fields of the module, such as `num_classes=10`, `shortcut="A"`,
        `dtype=jnp.bfloat16`; the class describes them.

    Raises:
      InputError: The name or an option is unknown, or an option has a wrong value.
    """
    return _variant(name).build(name, **options)


def _variant(name: str) -> Variant:
    if name not in _VARIANTS:
        raise unknown("model", name, _VARIANTS)
    return _VARIANTS[name]
