"""Which residual network a set of arrays belongs to."""

import itertools

from resnet_jax.errors import InputError
from resnet_jax.interop.families.family import Fields, Look
from resnet_jax.models import BottleneckBlock, ResidualBlock

KERNEL = "params/stem/conv/kernel"

_MOST_STAGES = 16


def resnet_fields(look: Look) -> Fields:
    """Returns the fields of a residual network that its arrays show.

    Raises:
      InputError: They are no residual network's.
    """
    sizes = (_blocks(look, stage) for stage in range(1, _MOST_STAGES + 1))
    stage_sizes = tuple(itertools.takewhile(lambda size: size > 0, sizes))
    if not stage_sizes:
        missing = look.place(_first(1, 1))
        assert missing is not None
        raise InputError(f"it is no residual network: it has no {missing.name}")
    side, _, _, width = look.demanded(KERNEL, 4)
    bottleneck = look.shape("params/stage1/block1/conv3/kernel") is not None
    return {
        "stage_sizes": stage_sizes,
        "block": BottleneckBlock if bottleneck else ResidualBlock,
        "width": width,
        "num_classes": look.demanded("params/head/kernel", 2)[1],
        "stem": "cifar" if side == 3 else "imagenet",
    }


def _blocks(look: Look, stage: int) -> int:
    found = (look.shape(_first(stage, block)) is not None for block in itertools.count(1))
    return sum(itertools.takewhile(bool, found))


def _first(stage: int, block: int) -> str:
    return f"params/stage{stage}/block{block}/conv1/kernel"
