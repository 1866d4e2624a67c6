"""VGG networks in the names of torchvision, and in our own.

Layers are numbered there through convolutions, normalisations, rectifiers and pools alike.
"""

import functools
import itertools
from collections.abc import Iterator

from resnet_jax.errors import InputError
from resnet_jax.interop.families.family import (
    Family,
    Fields,
    Look,
    Shapes,
    Vocabulary,
    channels_at,
    is_number,
    own_names,
)
from resnet_jax.interop.naming import Place, split, torch_place
from resnet_jax.models import VGG

_FIRST = "params/conv1_1/kernel"
_LAYERS = {"hidden/fc1": "classifier.0", "hidden/fc2": "classifier.3", "head": "classifier.6"}
_SIDE = 7
_MOST_LAYERS = 256


def _torchvision_place(stage_sizes: tuple[int, ...], batch_norm: bool, name: str) -> Place | None:
    _, module, _ = split(name)
    path = "/".join(module)
    if path in _LAYERS:
        return torch_place(name, _LAYERS[path], side=_SIDE if path == "hidden/fc1" else 0)
    stage, layer = map(int, path.lstrip("bcnov").split("_"))
    before = sum(stage_sizes[: stage - 1]) + layer - 1
    index = before * (3 if batch_norm else 2) + stage - 1
    return torch_place(name, f"features.{index + path.startswith('bn')}")


def _torchvision_fields(shapes: Shapes) -> Fields:
    batch_norm = "features.1.running_mean" in shapes
    step = 3 if batch_norm else 2
    sizes, index = [0], 0
    while len(shapes.get(f"features.{index}.weight", ())) == 4 and index < _MOST_LAYERS:
        sizes[-1] += 1
        index += step
        if len(shapes.get(f"features.{index}.weight", ())) != 4:  # a pool
            sizes.append(0)
            index += 1
    stage_sizes = tuple(size for size in sizes if size)
    place = functools.partial(_torchvision_place, stage_sizes, batch_norm)
    return {"stage_sizes": stage_sizes, "batch_norm": batch_norm, **_widths(Look(shapes, place))}


def _our_fields(look: Look) -> Fields:
    def convolutions() -> Iterator[int]:
        for stage in itertools.count(1):
            names = (f"params/conv{stage}_{layer}/kernel" for layer in itertools.count(1))
            yield sum(1 for _ in itertools.takewhile(look.shape, names))

    stage_sizes = tuple(itertools.takewhile(bool, convolutions()))
    if not stage_sizes:
        raise InputError(f"it is no VGG network: it has no {_FIRST}")
    batch_norm = look.shape("batch_stats/bn1_1/mean") is not None
    return {"stage_sizes": stage_sizes, "batch_norm": batch_norm, **_widths(look)}


def _widths(look: Look) -> Fields:
    return {
        "width": look.demanded(_FIRST, 4)[3],
        "hidden_units": look.demanded("params/hidden/fc2/kernel", 2)[1],
        "num_classes": look.demanded("params/head/kernel", 2)[1],
    }


VGG_NETWORK = Family(
    module=VGG,
    said={"dropout_rate": is_number, "bn_momentum": is_number, "bn_epsilon": is_number},
    channels=channels_at(_FIRST),
    vocabularies={
        "torchvision": Vocabulary(
            sign="features.0.weight",
            is_spoken=lambda shapes: shapes.get("features.0.weight", ())[2:] == (3, 3),
            fields=_torchvision_fields,
            place=lambda network, name: _torchvision_place(
                network.stage_sizes, network.batch_norm, name
            ),
            form={"dropout_rate": 0.5, "bn_momentum": 0.9, "bn_epsilon": 1e-5},
        ),
        "resnet_jax": own_names(_our_fields),
    },
)
