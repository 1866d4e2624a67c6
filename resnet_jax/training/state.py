"""The training state, and the parts of it in a checkpoint."""

from collections.abc import Mapping
from typing import Self, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import serialization, struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from resnet_jax.data import Statistics
from resnet_jax.training.schedules import Plateau


class Window(struct.PyTreeNode):
    """Sums over the steps since the last line of the log.

    They belong to the state so that a run that was interrupted between two lines logs the same
    numbers as one that was not. `bad_step` is the first of these steps, counted from 1, with a
    number that is infinite or NaN; 0 if there is none.
    """

    steps: Int[Array, ""] | np.int32
    loss: Float[Array, ""] | np.float32
    top1_error: Float[Array, ""] | np.float32  # the sum of the shares of wrong predictions
    bad_step: Int[Array, ""] | np.int32

    @classmethod
    def empty(cls) -> Self:
        """Returns the window of no step."""
        return cls(np.int32(0), np.float32(0), np.float32(0), np.int32(0))

    def add(
        self,
        step: Int[Array, ""],
        loss: Float[Array, ""],
        top1_error: Float[Array, ""],
        finite: Bool[Array, ""],
    ) -> Self:
        """Returns the window with one step more, `step` counted from 1."""
        return self.replace(
            steps=self.steps + 1,
            loss=self.loss + loss,
            top1_error=self.top1_error + top1_error,
            bad_step=jnp.where((self.bad_step > 0) | finite, self.bad_step, step),
        )


def all_finite(tree: PyTree[Float[Array, "..."]]) -> Bool[Array, ""]:
    """Returns whether a tree has neither infinities nor NaN."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


class TrainState(struct.PyTreeNode):
    """The state, as each replica has it whole.

    Attributes:
      step: Number of steps taken, and so the number of the next one.
      params: The network's parameters, float32.
      batch_stats: Running statistics of its batch normalisation; empty where it has none.
      opt_state: The optimiser's state.
      plateau: The factor of the learning rate, and its history.
      window: The sums for the next line of the log.
    """

    step: Int[Array, ""]
    params: PyTree[Float[Array, "..."]]
    batch_stats: PyTree[Float[Array, "..."]]
    opt_state: optax.OptState
    plateau: Plateau
    window: Window

    @property
    def variables(self) -> dict[str, PyTree[Float[Array, "..."]]]:
        """The variables that the network is applied with."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
) -> TrainState:
    """Returns the state before the first step, for images of a height, a width and channels."""
    # Lazily, and not in a jit: the samplers are then compiled once a shape, not once a parameter.
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = model.lazy_init(jax.random.key(seed), images, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        plateau=Plateau.start(),
        window=Window.empty(),
    )


def pack(state: TrainState, statistics: Statistics) -> dict[str, PyTree]:
    """Returns the parts of a checkpoint: `variables`, `training` (the rest), `measured`."""
    parts = serialization.to_state_dict(state)
    variables = {"params": parts.pop("params"), "batch_stats": parts.pop("batch_stats")}
    return {"variables": variables, "training": parts, "measured": statistics.arrays()}


def unpack(parts: Mapping[str, PyTree], shapes: TrainState) -> tuple[TrainState, Statistics]:
    """Returns what was packed; `shapes` is a state with the same structure."""
    state = serialization.from_state_dict(shapes, {**parts["training"], **parts["variables"]})
    return cast(TrainState, state), Statistics(**parts["measured"])
