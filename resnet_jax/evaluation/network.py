"""A network with all that it takes to evaluate it."""

from typing import NamedTuple

from flax import linen as nn
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from resnet_jax.data import Statistics
from resnet_jax.evaluation.protocol import Preparation

Variables = dict[str, PyTree[Float[Array, "..."]]]


class Network(NamedTuple):
    """A network, of a run or of someone else.

    Attributes:
      name: What it is called in messages.
      step: Steps of training that it had; None where that is not known.
      model: The network.
      variables: Its `params` and `batch_stats`, on the host.
      statistics: What images are normalised with.
      preparation: How images for evaluation are prepared.
      channels: Of its images, 1 or 3.
      class_names: What its logits stand for; None where only their number is known.
      num_classes: The number of its logits.
      config: The data that it knows, and how images for training are prepared.
    """

    name: str
    step: int | None
    model: nn.Module
    variables: Variables
    statistics: Statistics
    preparation: Preparation
    channels: int
    class_names: tuple[str, ...] | None
    num_classes: int
    config: ConfigDict
