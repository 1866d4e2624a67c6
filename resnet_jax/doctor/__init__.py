"""The doctor: measures the parts of a run, each on its own, and says which one limits it.

It uses the run's own source, images, batches, devices and step, and writes nothing.
"""

from resnet_jax.doctor.advice import Limit, advice, find_limit, verdict
from resnet_jax.doctor.findings import Case, Findings
from resnet_jax.doctor.measure import Subject, measure
from resnet_jax.doctor.report import report

__all__ = [
    "Case",
    "Findings",
    "Limit",
    "Subject",
    "advice",
    "find_limit",
    "measure",
    "report",
    "verdict",
]
