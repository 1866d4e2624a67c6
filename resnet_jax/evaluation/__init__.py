"""Protocols of evaluation, over the checkpoints of a run."""

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

__all__ = [
    "Description",
    "Errors",
    "Evaluation",
    "Evaluator",
    "Trained",
    "Variables",
    "evaluate",
    "restore",
    "same_classes",
    "variables_template",
]
