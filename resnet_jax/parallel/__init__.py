"""Replicas and processes: the only place that knows how many there are.

A *replica* is one device with a whole copy of the state; it sees an equal share of every global
batch. A *process* drives some of them: one on a laptop, one a host on a pod.
"""

from resnet_jax.parallel.processes import (
    JoinError,
    agree_on_input,
    all_processes,
    broadcast,
    gather,
    initialize,
    is_alone,
    is_joined,
    is_primary,
    leave,
    lost_process,
    once,
    patience,
    preemption_sync,
    process_index,
    process_name,
    share,
    total,
)
from resnet_jax.parallel.replicas import AXIS, MapName, MappedFunction, Replicas

__all__ = [
    "AXIS",
    "JoinError",
    "MapName",
    "MappedFunction",
    "Replicas",
    "agree_on_input",
    "all_processes",
    "broadcast",
    "gather",
    "initialize",
    "is_alone",
    "is_joined",
    "is_primary",
    "leave",
    "lost_process",
    "once",
    "patience",
    "preemption_sync",
    "process_index",
    "process_name",
    "share",
    "total",
]
