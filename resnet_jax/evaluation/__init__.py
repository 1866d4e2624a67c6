"""Protocols of evaluation, over the checkpoints of runs and over foreign weights.

A `Protocol` says which `views` of an image a network sees; `score` runs a network over them, shape
by shape, and `see` averages several networks and keeps of each image its `Outcomes`. `evaluate`,
`evaluate_weights` and `evaluate_ensemble` do all of it. `Evaluator` is the evaluation in training.
"""

from resnet_jax.evaluation.checkpoint import (
    Description,
    Trained,
    restore,
    same_classes,
    variables_template,
)
from resnet_jax.evaluation.ensemble import EnsembleEvaluation, evaluate_ensemble
from resnet_jax.evaluation.network import Network, Variables
from resnet_jax.evaluation.networks import Found, evaluate_networks
from resnet_jax.evaluation.options import Options
from resnet_jax.evaluation.outcomes import Outcomes
from resnet_jax.evaluation.per_class import ClassErrors, errors_of_classes
from resnet_jax.evaluation.precise import PreciseStatistics, precise_batch_stats
from resnet_jax.evaluation.protocol import Preparation, Protocol, ProtocolName, Shown, read_protocol
from resnet_jax.evaluation.runs import Evaluation, evaluate, network_of_run
from resnet_jax.evaluation.seen import Seen, see
from resnet_jax.evaluation.single_crop import Errors, Evaluator
from resnet_jax.evaluation.weights import (
    WeightsEvaluation,
    evaluate_weights,
    is_run,
    network_of_weights,
    weights_of_run,
)

__all__ = [
    "ClassErrors",
    "Description",
    "EnsembleEvaluation",
    "Errors",
    "Evaluation",
    "Evaluator",
    "Found",
    "Network",
    "Options",
    "Outcomes",
    "PreciseStatistics",
    "Preparation",
    "Protocol",
    "ProtocolName",
    "Seen",
    "Shown",
    "Trained",
    "Variables",
    "WeightsEvaluation",
    "errors_of_classes",
    "evaluate",
    "evaluate_ensemble",
    "evaluate_networks",
    "evaluate_weights",
    "is_run",
    "network_of_run",
    "network_of_weights",
    "precise_batch_stats",
    "read_protocol",
    "restore",
    "same_classes",
    "see",
    "variables_template",
    "weights_of_run",
]
