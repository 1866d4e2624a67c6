"""The doctor: measures the parts of a run, each on its own, and says which one limits it.

It uses the run's own source, images, batches, devices and step, and writes nothing.
"""

from resnet_jax.doctor.measure import Case, Findings, describe, measure
from resnet_jax.doctor.report import report

__all__ = ["Case", "Findings", "describe", "measure", "report"]
