"""Residual networks in the names of torchvision, timm and Hugging Face, and in our own."""

from collections.abc import Callable, Sequence

from resnet_jax.interop.families.family import (
    Family,
    Fields,
    Look,
    Shapes,
    Vocabulary,
    channels_at,
    is_count,
    is_number,
    is_text,
    own_names,
)
from resnet_jax.interop.families.resnet_caffe import CAFFE
from resnet_jax.interop.families.resnet_fields import KERNEL, resnet_fields
from resnet_jax.interop.families.resnet_keras import KERAS
from resnet_jax.interop.naming import Place, split, torch_place
from resnet_jax.interop.preprocessing import Json
from resnet_jax.models import ResNet

_FORM = {
    "stem": "imagenet",
    "shortcut": "B",
    "stride_on": "3x3",
    "pool_padding": (1, 1),
    "output_stride": None,
    "bn_momentum": 0.9,
    "bn_epsilon": 1e-5,
}
_HUGGING_FACE_LAYERS = {"conv": "convolution", "bn": "normalization"}


def torchvision_place(name: str) -> Place | None:
    """Returns where torchvision and timm have an array."""
    _, module, _ = split(name)
    match module:
        case ["stem", layer]:
            path = f"{layer}1"
        case [stage, block, *branch, layer]:
            if branch:
                layer = {"conv": "downsample.0", "bn": "downsample.1"}[layer]
            path = f"layer{_number(stage)}.{_number(block) - 1}.{layer}"
        case _:
            path = "fc"
    return torch_place(name, path)


def hugging_face_place(name: str) -> Place | None:
    """Returns where transformers has an array."""
    _, module, _ = split(name)
    return torch_place(name, _hugging_face(module))


def _hugging_face(module: Sequence[str]) -> str:
    match module:
        case ["stem", layer]:
            return f"resnet.embedder.embedder.{_HUGGING_FACE_LAYERS[layer]}"
        case [stage, block, *branch, layer]:
            kind = _HUGGING_FACE_LAYERS[layer.rstrip("123456789")]
            place = "shortcut" if branch else f"layer.{_number(layer) - 1}"
            layers = f"resnet.encoder.stages.{_number(stage) - 1}.layers.{_number(block) - 1}"
            return f"{layers}.{place}.{kind}"
        case _:
            return "classifier.1"


def _number(name: str) -> int:
    return int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))


def _vocabulary(place: Callable[[str], Place | None]) -> Vocabulary:
    first = place(KERNEL)
    assert first is not None

    def fields(shapes: Shapes) -> Fields:
        return resnet_fields(Look(shapes, place))

    return Vocabulary(
        sign=first.name,
        is_spoken=lambda shapes: first.name in shapes,
        fields=fields,
        place=lambda network, name: place(name),
        form=_FORM,
    )


def _is_padding(value: Json) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(v in (0, 1, 2) for v in value)


RESNET = Family(
    module=ResNet,
    said={
        "shortcut": is_text,
        "stride_on": is_text,
        "pool_padding": _is_padding,
        "output_stride": lambda value: value is None or is_count(value),
        "bn_momentum": is_number,
        "bn_epsilon": is_number,
    },
    channels=channels_at(KERNEL),
    vocabularies={
        "torchvision": _vocabulary(torchvision_place),
        "timm": _vocabulary(torchvision_place),
        "huggingface": _vocabulary(hugging_face_place),
        "keras": KERAS,
        "caffe": CAFFE,
        "resnet_jax": own_names(resnet_fields, _FORM),
    },
)
