"""Residual networks in the names of He's Caffe models: ResNet-50, 101 and 152.

A normalisation is two layers there: BatchNorm has the mean, the variance and what both are to be
divided by, Scale the rest. The first convolution of the network with 50 layers has a bias, and that
of all of them reads BGR, where here it reads RGB. Blobs have no names but their numbers: `conv1/0`
is a kernel.
"""

from resnet_jax.errors import InputError
from resnet_jax.interop.families.family import Fields, Look, Shapes, Vocabulary
from resnet_jax.interop.families.resnet_fields import KERNEL, resnet_fields
from resnet_jax.interop.naming import Place, split
from resnet_jax.models import BottleneckBlock, ResNet

_BLOBS = {"kernel": 0, "mean": 0, "var": 1, "factor": 2, "scale": 0, "bias": 1}
_STEM_BIAS = "conv_biases/stem/conv/bias"
_RESNET_50 = (3, 4, 6, 3)
_LETTERED = 3
"""Blocks up to which the stages of the deeper networks have letters for them, and no numbers."""


def _place(network: ResNet, name: str) -> Place | None:
    if network.block is not BottleneckBlock:
        raise InputError("caffe has residual networks of bottleneck blocks alone")
    deep = max(network.stage_sizes) > max(_RESNET_50)
    numbered = {
        f"stage{stage}"
        for stage, blocks in enumerate(network.stage_sizes, 1)
        if deep and blocks > _LETTERED
    }
    return _place_of(name, numbered)


def _place_of(name: str, numbered: set[str]) -> Place | None:
    collection, module, leaf = split(name)
    if collection == "batches_tracked" or (collection == "conv_biases" and name != _STEM_BIAS):
        return None
    is_scale = collection == "params" and leaf in ("scale", "bias")
    match module:
        case ["stem", kind]:
            layer = {"conv": "conv1", "bn": "scale_conv1" if is_scale else "bn_conv1"}[kind]
        case [stage, block, *_, kind]:
            kind, branch = kind.rstrip("123456789"), kind.lstrip("bcnov")
            prefix = {"conv": "res", "bn": "scale" if is_scale else "bn"}[kind]
            layer = f"{prefix}{_block(stage, block, numbered)}_branch"
            layer += f"2{'abc'[int(branch) - 1]}" if branch else "1"
        case _:
            layer = "fc1000"
    return Place(f"{layer}/{_BLOBS[leaf]}", channels_first=True, reversed_inputs=name == KERNEL)


def _block(stage: str, block: str, numbered: set[str]) -> str:
    number = int(block.removeprefix("block"))
    letter = chr(ord("a") + number - 1)
    if stage in numbered:
        letter = "a" if number == 1 else f"b{number - 1}"
    return f"{int(stage.removeprefix('stage')) + 1}{letter}"


def _fields(shapes: Shapes) -> Fields:
    numbered = {f"stage{n}" for n in range(1, 17) if f"res{n + 1}b1_branch2a/0" in shapes}
    return resnet_fields(Look(shapes, lambda name: _place_of(name, numbered)))


def _fill(network: ResNet, name: str) -> float | None:
    if name.startswith("moving_factors/"):
        return 1.0
    return 0.0 if name == _STEM_BIAS and network.stage_sizes == _RESNET_50 else None


CAFFE = Vocabulary(
    sign="conv1/0",
    is_spoken=lambda shapes: "conv1/0" in shapes,
    fields=_fields,
    place=_place,
    form={
        "stem": "imagenet",
        "shortcut": "B",
        "stride_on": "1x1",
        "pool_padding": (0, 1),
        "output_stride": None,
        "bn_momentum": 0.9,
        "bn_epsilon": 1e-5,
    },
    fill=_fill,
)
