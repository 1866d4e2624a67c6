"""Protocols of evaluation, over the checkpoints of a run."""

from resnet_jax.evaluation.checkpoint import (
    Evaluation,
    Trained,
    evaluate,
    restore,
    variables_template,
)
from resnet_jax.evaluation.single_crop import Errors, Evaluator, Variables

__all__ = [
    "Errors",
    "Evaluation",
    "Evaluator",
    "Trained",
    "Variables",
    "evaluate",
    "restore",
    "variables_template",
]
