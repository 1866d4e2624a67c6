"""Networks on images larger than those that they were trained on, without resizing them."""

import functools
from collections.abc import Callable

from flax import linen as nn

from resnet_jax.models.alexnet import AlexNet
from resnet_jax.models.bn_inception import BNInception
from resnet_jax.models.googlenet import GoogLeNet
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.vgg import VGG
from resnet_jax.models.zfnet import ZFNet


def fully_convolutional(model: nn.Module) -> Callable[..., object] | None:
    """Returns the `apply` of a network's fully convolutional form; None where it has none.

    The layers behind the last maps are applied at every position, and the scores, before the
    softmax, averaged over the positions (Simonyan & Zisserman, arXiv 1409.1556, section 3.2). The
    parameters are the network's own.

    Behind global average pooling there is only a linear layer, so that pooling over all positions
    is the same. Fully connected layers on maps of one size become convolutions as large as those;
    what was trained on maps of another size, averaged into theirs, is another network in this form.

    Args:
      model: The network.
    """
    match model:
        case ResNet() | GoogLeNet() | BNInception():
            return model.apply
        case VGG() | AlexNet() | ZFNet():
            return functools.partial(model.apply, fully_convolutional=True)
        case _:
            return None
