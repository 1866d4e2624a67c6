"""Evaluation of checkpoints and of weights, and the protocols for it.

`evaluate`, `evaluate_weights` and `evaluate_ensemble` return a `Result`. A `Protocol` says which
views of an image a network sees, `predict` makes `Predictions` of them, and
`resnet_jax.evaluation.metrics` makes numbers of those. `Evaluator` is the evaluation in training.
"""

from resnet_jax.evaluation.batches import ViewReader
from resnet_jax.evaluation.engine import Evaluator, predict
from resnet_jax.evaluation.metrics import Predictions, errors_of_classes, measure
from resnet_jax.evaluation.network import (
    Description,
    Network,
    Variables,
    is_run,
    network_of_weights,
    restore,
    same_classes,
    weights_of_run,
)
from resnet_jax.evaluation.precise import precise_batch_stats
from resnet_jax.evaluation.protocol import SCALES, Preparation, Protocol, ProtocolName
from resnet_jax.evaluation.results import (
    Options,
    Result,
    evaluate,
    evaluate_ensemble,
    evaluate_weights,
)

__all__ = [
    "SCALES",
    "Description",
    "Evaluator",
    "Network",
    "Options",
    "Predictions",
    "Preparation",
    "Protocol",
    "ProtocolName",
    "Result",
    "Variables",
    "ViewReader",
    "errors_of_classes",
    "evaluate",
    "evaluate_ensemble",
    "evaluate_weights",
    "is_run",
    "measure",
    "network_of_weights",
    "precise_batch_stats",
    "predict",
    "restore",
    "same_classes",
    "weights_of_run",
]
