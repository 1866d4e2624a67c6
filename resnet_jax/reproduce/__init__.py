"""The paper's tables and figures from runs: published numbers beside measured ones."""

from resnet_jax.reproduce.paper import EXPERIMENTS, Experiment, Row
from resnet_jax.reproduce.report import make_report, redraw, write_report
from resnet_jax.reproduce.runs import Plan

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Plan",
    "Row",
    "make_report",
    "redraw",
    "write_report",
]
