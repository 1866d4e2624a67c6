"""AlexNet in the names of torchvision, and in our own."""

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
from resnet_jax.models import AlexNet

_FIRST = "params/conv1/kernel"
_MODULES = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "hidden/fc1": "classifier.1",
    "hidden/fc2": "classifier.4",
    "head": "classifier.6",
}
_SIDE = 11
"""Of the first kernel, by which it is told from VGG's."""


def _torchvision_place(name: str) -> Place | None:
    _, module, _ = split(name)
    path = "/".join(module)
    return torch_place(name, _MODULES[path], side=6 if path == "hidden/fc1" else 0)


def _fields(look: Look) -> Fields:
    kernels = [look.demanded(f"params/conv{i}/kernel", 4) for i in range(1, 6)]
    filters = tuple(kernel[3] for kernel in kernels)
    return {
        "filters": filters,
        "groups": max(filters[0] // kernels[1][2], 1),
        "hidden_units": look.demanded("params/hidden/fc2/kernel", 2)[1],
        "num_classes": look.demanded("params/head/kernel", 2)[1],
    }


ALEXNET = Family(
    module=AlexNet,
    said={"form": is_text, "dropout_rate": is_number},
    channels=channels_at(_FIRST),
    vocabularies={
        "torchvision": Vocabulary(
            sign="features.0.weight",
            is_spoken=lambda shapes: shapes.get("features.0.weight", ())[2:] == (_SIDE, _SIDE),
            fields=lambda shapes: _fields(Look(shapes, _torchvision_place)),
            place=lambda network, name: _torchvision_place(name),
            form={"form": "torchvision", "dropout_rate": 0.5},
        ),
        "resnet_jax": own_names(_fields),
    },
)
