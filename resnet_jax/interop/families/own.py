"""Networks that no other library has; files in our own names say all of their fields."""

from collections.abc import Mapping

from resnet_jax.interop.families.family import (
    Family,
    Look,
    Vocabulary,
    channels_at,
    is_count,
    is_counts,
    is_flag,
    is_number,
    is_text,
    own_names,
)
from resnet_jax.interop.naming import DialectName
from resnet_jax.models import BNInception, LeNet5, PReLUNet, ZFNet

_OWN: Mapping[DialectName, Vocabulary] = {"resnet_jax": own_names(lambda look: {})}
_DEPTHWISE = 8
"""Maps that the first layer of BN-Inception makes of each channel."""


def _channels_of_bn_inception(look: Look) -> int:
    match look.shape("params/conv1_depthwise/kernel"):
        case (_, _, 1, filters):
            return max(filters // _DEPTHWISE, 1)
        case _:
            return channels_at("params/conv1/conv/kernel")(look)


LENET5 = Family(
    module=LeNet5,
    said={
        "num_classes": is_count,
        "subsampling": is_text,
        "connections": is_text,
        "output": is_text,
        "activation": is_text,
    },
    channels=channels_at("params/c1/kernel"),
    vocabularies=_OWN,
    side=32,
)
ZFNET = Family(
    module=ZFNet,
    said={
        "num_classes": is_count,
        "filters": is_counts,
        "hidden_units": is_count,
        "dropout_rate": is_number,
    },
    channels=channels_at("params/conv1/kernel"),
    vocabularies=_OWN,
)
BN_INCEPTION = Family(
    module=BNInception,
    said={
        "num_classes": is_count,
        "width": is_count,
        "separable_stem": is_flag,
        "dropout_rate": is_number,
        "bn_momentum": is_number,
        "bn_epsilon": is_number,
    },
    channels=_channels_of_bn_inception,
    vocabularies=_OWN,
)
PRELU_NET = Family(
    module=PReLUNet,
    said={
        "num_classes": is_count,
        "stage_sizes": is_counts,
        "filters": is_counts,
        "stem_filters": is_count,
        "hidden_units": is_count,
        "dropout_rate": is_number,
    },
    channels=channels_at("params/conv1/kernel"),
    vocabularies=_OWN,
)
