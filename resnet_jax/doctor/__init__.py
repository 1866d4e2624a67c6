"""The doctor: measures the parts of a run, each on its own, and says which one limits it.

It uses the run's own source, images, batches, devices and step, and writes nothing.
"""

from resnet_jax.doctor.advice import advice
from resnet_jax.doctor.examine import examine
from resnet_jax.doctor.findings import Case, Findings, Reading, Step
from resnet_jax.doctor.screen import screen
from resnet_jax.doctor.subject import Subject, case_of
from resnet_jax.doctor.verdict import Limit, Verdict, verdict

__all__ = [
    "Case",
    "Findings",
    "Limit",
    "Reading",
    "Step",
    "Subject",
    "Verdict",
    "advice",
    "case_of",
    "examine",
    "screen",
    "verdict",
]
