"""The families of networks, whose names their arrays may have, and which it is."""

from collections.abc import Mapping
from typing import get_args

from flax import linen as nn

from resnet_jax.errors import InputError, unknown
from resnet_jax.interop.families.alexnet import ALEXNET
from resnet_jax.interop.families.family import Family, Network, Shapes, Vocabulary
from resnet_jax.interop.families.googlenet import GOOGLENET
from resnet_jax.interop.families.own import BN_INCEPTION, LENET5, PRELU_NET, ZFNET
from resnet_jax.interop.families.resnet import RESNET
from resnet_jax.interop.families.vgg import VGG_NETWORK
from resnet_jax.interop.naming import DialectName

__all__ = [
    "FAMILIES",
    "Family",
    "Network",
    "Shapes",
    "Vocabulary",
    "family_of",
    "recognise",
    "vocabulary",
]

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        *(RESNET, ALEXNET, VGG_NETWORK, GOOGLENET),
        *(LENET5, ZFNET, BN_INCEPTION, PRELU_NET),
    )
}

_SHOWN = 3


def family_of(network: nn.Module) -> Family:
    """Returns the family of a network.

    Raises:
      InputError: It is none of those here.
    """
    for family in FAMILIES.values():
        if type(network) is family.module:
            return family
    known = ", ".join(FAMILIES)
    raise InputError(f"{type(network).__name__} is none of the networks here, which are {known}")


def vocabulary(family: Family, dialect: DialectName) -> Vocabulary:
    """Returns what a library calls the arrays of a family.

    Raises:
      InputError: It has no such networks.
    """
    if dialect not in family.vocabularies:
        known = ", ".join(family.vocabularies)
        raise InputError(
            f"{dialect} has no network of the kind {family.name}; names of such are in: {known}"
        )
    return family.vocabularies[dialect]


def recognise(
    shapes: Shapes, dialect: DialectName | None, module: str | None
) -> tuple[Family, DialectName]:
    """Returns which family arrays belong to, and whose names they have.

    torchvision's names of residual networks are timm's too.

    Args:
      shapes: Their shapes, by their names.
      dialect: Whose they have, if that is known.
      module: The class of the network, if the file says it, as one in our own names does.

    Raises:
      InputError: There is no such dialect or class, or they are nobody's.
    """
    if dialect is not None and dialect not in get_args(DialectName):
        raise unknown("dialect", dialect, get_args(DialectName))
    if module is not None and module not in FAMILIES:
        raise unknown("network", module, FAMILIES)
    families = [FAMILIES[module]] if module else list(FAMILIES.values())
    spoken = [
        (family, name, vocabulary)
        for family in families
        for name, vocabulary in family.vocabularies.items()
        if dialect in (None, name)
    ]
    for family, name, vocabulary in spoken:
        if vocabulary.is_spoken(shapes):
            return family, name
    signs = ", ".join(dict.fromkeys(vocabulary.sign for _, _, vocabulary in spoken))
    shown = ", ".join(sorted(shapes)[:_SHOWN])
    raise InputError(f"it is no network that is known here: it has none of {signs}, but {shown}")
