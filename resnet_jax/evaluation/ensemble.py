"""Evaluation of several networks together."""

from collections.abc import Sequence
from typing import NamedTuple, Unpack

from resnet_jax.checkpoints import Json
from resnet_jax.evaluation.network import Network
from resnet_jax.evaluation.networks import evaluate_networks
from resnet_jax.evaluation.options import Options


class EnsembleEvaluation(NamedTuple):
    """The errors of several networks together.

    Attributes:
      networks: For each its `name` (workdir or weights), its `step` and its `protocol`, see
        `Found.protocols`.
      split: Split of the data that they were evaluated on.
      examples: Number of images, each seen once.
      top1_error: In percent.
      top5_error: In percent.
      loss: Mean cross-entropy, in nats.
    """

    networks: list[dict[str, Json]]
    split: str
    examples: int
    top1_error: float
    top5_error: float
    loss: float


def evaluate_ensemble(
    networks: Sequence[Network], **options: Unpack[Options]
) -> EnsembleEvaluation:
    """Evaluates the mean of the probabilities of several networks, as in table 5 of the paper.

    Each sees images as they are prepared for it; the data are those of the first one's config.

    Args:
      networks: What `network_of_run` and `network_of_weights` returned.
      **options: See `Options`.

    Raises:
      InputError: They do not know the same classes, or what `evaluate_networks` refuses.
    """
    found = evaluate_networks(networks, **options)
    described: list[dict[str, Json]] = [
        {"name": network.name, "step": network.step, "protocol": protocol}
        for network, protocol in zip(networks, found.protocols, strict=True)
    ]
    return EnsembleEvaluation(described, found.split, *found.errors)
