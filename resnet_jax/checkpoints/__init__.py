"""The checkpoints of a run, and its workdir."""

from resnet_jax.checkpoints.manifest import Evaluation, finished_steps
from resnet_jax.checkpoints.store import Checkpoint, Checkpoints, delete, set_aside
from resnet_jax.checkpoints.workdir import (
    BusyError,
    Json,
    Layout,
    Workdir,
    lock,
    read_config,
    refuse_unshared,
)

__all__ = [
    "BusyError",
    "Checkpoint",
    "Checkpoints",
    "Evaluation",
    "Json",
    "Layout",
    "Workdir",
    "delete",
    "finished_steps",
    "lock",
    "read_config",
    "refuse_unshared",
    "set_aside",
]
