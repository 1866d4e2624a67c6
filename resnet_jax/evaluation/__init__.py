"""Protocols of evaluation, over the checkpoints of a run and over foreign weights."""

from resnet_jax.evaluation.checkpoint import (
    Description,
    Evaluation,
    Trained,
    evaluate,
    restore,
    same_classes,
    variables_template,
)
from resnet_jax.evaluation.single_crop import Errors, Evaluator, Variables
from resnet_jax.evaluation.weights import (
    WeightsEvaluation,
    evaluate_weights,
    is_run,
    weights_of_run,
)

__all__ = [
    "Description",
    "Errors",
    "Evaluation",
    "Evaluator",
    "Trained",
    "Variables",
    "WeightsEvaluation",
    "evaluate",
    "evaluate_weights",
    "is_run",
    "restore",
    "same_classes",
    "variables_template",
    "weights_of_run",
]
