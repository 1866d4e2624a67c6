"""The state as a checkpoint holds it: named parts, of which evaluation reads only some."""

from collections.abc import Mapping
from typing import cast

import jax
from flax import serialization
from jaxtyping import PyTree

from resnet_jax.data import Statistics
from resnet_jax.training.run import Run
from resnet_jax.training.state import TrainState


def pack(state: TrainState, statistics: Statistics) -> dict[str, PyTree]:
    """Returns the parts: `variables`, `training` (the rest of the state), `measured`."""
    parts = serialization.to_state_dict(state)
    variables = {"params": parts.pop("params"), "batch_stats": parts.pop("batch_stats")}
    return {"variables": variables, "training": parts, "measured": statistics.arrays()}


def unpack(parts: Mapping[str, PyTree], run: Run) -> tuple[TrainState, Statistics]:
    """Returns what was packed."""
    shapes = jax.eval_shape(run.init_state)
    state = serialization.from_state_dict(shapes, {**parts["training"], **parts["variables"]})
    return cast(TrainState, state), Statistics(**parts["measured"])


def templates(run: Run) -> dict[str, PyTree]:
    """Returns the shapes and types of the parts."""
    return pack(jax.eval_shape(run.init_state), run.statistics_template())
