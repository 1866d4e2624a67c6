"""GoogLeNet in the names of torchvision, and in our own.

torchvision's `transform_input=True`, which its published weights want, changes images that were
normalised with ImageNet's numbers into ones of mean 0.5 and deviation 0.5: here this is said by the
preprocessing, and the network takes its input as it is.
"""

from resnet_jax.interop.families.family import (
    Family,
    Fields,
    Look,
    Vocabulary,
    channels_at,
    is_number,
    is_text,
    own_names,
)
from resnet_jax.interop.naming import Place, split, torch_place
from resnet_jax.models import GoogLeNet

_FIRST = "params/conv1/conv/kernel"
_HIDDEN = "params/auxiliary1/fc/kernel"
_MODULES = {
    "conv1": "conv1",
    "conv2_reduce": "conv2",
    "conv2": "conv3",
    "head": "fc",
    "auxiliary1": "aux1",
    "auxiliary2": "aux2",
}
_INNER = {
    "conv1x1": "branch1",
    "conv3x3_reduce": "branch2.0",
    "conv3x3": "branch2.1",
    "conv5x5_reduce": "branch3.0",
    "conv5x5": "branch3.1",
    "pool_proj": "branch4.1",
    "fc": "fc1",
    "head": "fc2",
}
_SIDE = 4


def _torchvision_place(name: str) -> Place | None:
    _, (first, *inner), _ = split(name)
    path = ".".join([_MODULES.get(first, first), *(_INNER.get(part, part) for part in inner)])
    return torch_place(name, path, side=_SIDE if inner == ["fc"] else 0)


def _fields(look: Look) -> Fields:
    fields = {
        "width": look.demanded(_FIRST, 4)[3],
        "num_classes": look.demanded("params/head/kernel", 2)[1],
        "auxiliary_heads": look.shape(_HIDDEN) is not None,
    }
    if fields["auxiliary_heads"]:
        fields["auxiliary_units"] = look.demanded(_HIDDEN, 2)[1]
    return fields


GOOGLENET = Family(
    module=GoogLeNet,
    said={
        "form": is_text,
        "dropout_rate": is_number,
        "auxiliary_dropout_rate": is_number,
        "bn_momentum": is_number,
        "bn_epsilon": is_number,
    },
    channels=channels_at(_FIRST),
    vocabularies={
        "torchvision": Vocabulary(
            sign="conv1.conv.weight",
            is_spoken=lambda shapes: "conv1.conv.weight" in shapes,
            fields=lambda shapes: _fields(Look(shapes, _torchvision_place)),
            place=lambda network, name: _torchvision_place(name),
            form={
                "form": "torchvision",
                "dropout_rate": 0.2,
                "auxiliary_dropout_rate": 0.7,
                "bn_momentum": 0.9,
                "bn_epsilon": 1e-3,
            },
        ),
        "resnet_jax": own_names(_fields),
    },
)
