"""Residual networks in the names of `keras.applications`: ResNet50, 101 and 152, the first form.

All of their convolutions have biases. Images reach them as BGR, which is in the kernel of the first
convolution: here it reads RGB.
"""

from collections.abc import Iterator

from resnet_jax.errors import InputError
from resnet_jax.interop.families.family import Look, Vocabulary
from resnet_jax.interop.families.resnet_fields import KERNEL, resnet_fields
from resnet_jax.interop.naming import Place, split
from resnet_jax.models import BottleneckBlock, ResNet

_LEAVES = {
    "kernel": "kernel",
    "scale": "gamma",
    "mean": "moving_mean",
    "var": "moving_variance",
}


def keras_layers(network: ResNet) -> Iterator[str]:
    """Yields the layers of a network that have arrays, in the order in which Keras has them."""
    yield from ("conv1_conv", "conv1_bn")
    for stage, blocks in enumerate(network.stage_sizes, 2):
        for number in range(1, blocks + 1):
            block = f"conv{stage}_block{number}"
            branch = number == 1
            yield from (f"{block}_{layer}" for layer in ("1_conv", "1_bn", "2_conv", "2_bn"))
            # By the number of layers that are still to come, so that the two ends alternate.
            yield from (f"{block}_{layer}" for layer in ("0_conv",) * branch + ("3_conv",))
            yield from (f"{block}_{layer}" for layer in ("0_bn",) * branch + ("3_bn",))
    yield "predictions"


def _place(network: ResNet, name: str) -> Place | None:
    if network.block is not BottleneckBlock:
        raise InputError("keras has residual networks of bottleneck blocks alone")
    return _place_of(name)


def _place_of(name: str) -> Place | None:
    collection, module, leaf = split(name)
    if collection in ("batches_tracked", "moving_factors"):
        return None
    match module:
        case ["stem", kind]:
            layer = f"conv1_{kind}"
        case [stage, block, "shortcut", kind]:
            layer = f"{_block(stage, block)}_0_{kind}"
        case [stage, block, kind]:
            layer = f"{_block(stage, block)}_{kind[-1]}_{kind[:-1]}"
        case _:
            layer = "predictions"
    shifts = collection == "params" and layer.endswith("_bn")
    there = _LEAVES.get(leaf) or ("beta" if shifts else "bias")
    return Place(f"{layer}/{there}", reversed_inputs=name == KERNEL)


def _block(stage: str, block: str) -> str:
    return f"conv{int(stage.removeprefix('stage')) + 1}_{block}"


KERAS = Vocabulary(
    sign="conv1_conv/kernel",
    is_spoken=lambda shapes: "conv1_conv/kernel" in shapes,
    fields=lambda shapes: resnet_fields(Look(shapes, _place_of)),
    place=_place,
    form={
        "stem": "imagenet",
        "shortcut": "B",
        "stride_on": "1x1",
        "pool_padding": (1, 1),
        "output_stride": None,
        "bn_momentum": 0.99,
        "bn_epsilon": 1.001e-5,
    },
    fill=lambda network, name: 0.0 if name.startswith("conv_biases/") else None,
)
