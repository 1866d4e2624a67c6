"""What changes in the course of training, and is all that a checkpoint needs of it."""

from typing import Self

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from resnet_jax.training.schedules import Plateau


class Window(struct.PyTreeNode):
    """Sums over the steps since the last line of the log.

    They belong to the state so that a run that was interrupted between two lines logs the same
    numbers as one that was not.

    Attributes:
      steps: Number of steps.
      loss: Sum of the steps' losses.
      top1_error: Sum of the shares of wrong predictions.
      finite: Whether all numbers of these steps were finite, see `all_finite`.
    """

    steps: Int[Array, ""]
    loss: Float[Array, ""]
    top1_error: Float[Array, ""]
    finite: Bool[Array, ""]

    @classmethod
    def empty(cls) -> Self:
        """Returns the window of no step."""
        return cls(jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.zeros(()), jnp.ones((), bool))

    def add(
        self, loss: Float[Array, ""], top1_error: Float[Array, ""], finite: Bool[Array, ""]
    ) -> Self:
        """Returns the window with one step more."""
        return self.replace(
            steps=self.steps + 1,
            loss=self.loss + loss,
            top1_error=self.top1_error + top1_error,
            finite=self.finite & finite,
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
      plateau: What the learning rate is multiplied with, and why.
      window: What the next line of the log is made of.
    """

    step: Int[Array, ""]
    params: PyTree[Float[Array, "..."]]
    batch_stats: PyTree[Float[Array, "..."]]
    opt_state: optax.OptState
    plateau: Plateau
    window: Window

    @property
    def variables(self) -> dict[str, PyTree[Float[Array, "..."]]]:
        """What the network is applied with."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
) -> TrainState:
    """Returns the state before the first step.

    Args:
      model: The network.
      optimizer: Its optimiser.
      image_shape: Height, width and channels of what the network sees.
      seed: Decides the initial parameters.
    """
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
