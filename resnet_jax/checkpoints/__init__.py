"""The checkpoints of a run, and its workdir."""

from resnet_jax.checkpoints.manifest import Evaluation, finished_steps
from resnet_jax.checkpoints.store import Checkpoint, Checkpoints
from resnet_jax.checkpoints.workdir import BusyError, Json, Layout, Workdir, read_config

__all__ = [
    "BusyError",
    "Checkpoint",
    "Checkpoints",
    "Evaluation",
    "Json",
    "Layout",
    "Workdir",
    "finished_steps",
    "read_config",
]
