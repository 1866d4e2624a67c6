"""Families of networks: their name maps by dialect, and recognition of a file's family."""

import functools
from collections.abc import Mapping
from typing import get_args

from flax import linen as nn

from resnet_jax.errors import InputError, unknown
from resnet_jax.interop.families import resnet, torchvision
from resnet_jax.interop.families.key_map import DialectName, KeyMap, Shapes, own_names
from resnet_jax.models import (
    VGG,
    AlexNet,
    GoogLeNet,
    ResNet,
    create_model,
    image_shape,
    list_models,
)

_KEY_MAPS: Mapping[type[nn.Module], Mapping[DialectName, KeyMap]] = {
    ResNet: resnet.KEY_MAPS,
    AlexNet: torchvision.ALEXNET,
    VGG: torchvision.VGG_NETWORK,
    GoogLeNet: torchvision.GOOGLENET,
}
"""Of the networks that other libraries have, in the order in which a file is compared with them."""

_OURS: Mapping[DialectName, KeyMap] = {"resnet_jax": own_names()}
_SIDE = 224
_SHOWN = 3


@functools.cache
def network_classes() -> Mapping[str, type[nn.Module]]:
    """Returns the classes of all networks by their name."""
    others = {type(create_model(name)) for name in list_models()} - _KEY_MAPS.keys()
    classes = [*_KEY_MAPS, *sorted(others, key=lambda each: each.__name__)]
    return {each.__name__: each for each in classes}


@functools.cache
def usual_side(network_class: type[nn.Module]) -> int:
    """Returns the pixels of a side of a network's images: 224, or fewer where all have fewer."""
    names = (name for name in list_models() if type(create_model(name)) is network_class)
    return min(_SIDE, max(image_shape(name)[0] for name in names))


def key_maps(network_class: type[nn.Module]) -> Mapping[DialectName, KeyMap]:
    """Returns the key maps of a class of networks by dialect; refuses a class of elsewhere."""
    if network_class not in network_classes().values():
        known = ", ".join(network_classes())
        name = network_class.__name__
        raise InputError(f"{name} is not one of the networks here, which are {known}")
    return _KEY_MAPS.get(network_class, _OURS)


def key_map(network_class: type[nn.Module], dialect: DialectName) -> KeyMap:
    """Returns the key map of a class of networks in a dialect that has such networks."""
    maps = key_maps(network_class)
    if dialect not in maps:
        raise InputError(
            f"{dialect} has no network of the kind {network_class.__name__}; names of such are in: "
            f"{', '.join(maps)}"
        )
    return maps[dialect]


def recognise(
    shapes: Shapes, dialect: DialectName | None, class_name: str | None
) -> tuple[type[nn.Module], DialectName]:
    """Returns the class of the network that arrays belong to, and the dialect of their names.

    The names of residual networks in timm are torchvision's.
    """
    if dialect not in (None, *get_args(DialectName)):
        raise unknown("dialect", dialect, get_args(DialectName))
    classes = network_classes()
    if class_name is not None and class_name not in classes:
        raise unknown("network", class_name, classes)
    typical = {
        (each, name): candidate.typical
        for each in ([classes[class_name]] if class_name else classes.values())
        for name, candidate in key_maps(each).items()
        if dialect in (None, name)
    }
    for found, beginning in typical.items():
        if any(name.startswith(beginning) for name in shapes):
            return found
    wanted = ", ".join(dict.fromkeys(typical.values()))
    shown = ", ".join(sorted(shapes)[:_SHOWN])
    raise InputError(
        f"it is not a network that is known here: it has none of {wanted}, but {shown}"
    )
