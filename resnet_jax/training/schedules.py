"""Learning rates: functions of the step, and what depends on the errors of evaluations."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from resnet_jax.errors import InputError, unknown

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]


def make_schedule(config: ConfigDict, total_steps: int) -> Schedule:
    """Returns the learning rate of a step, counted from 0.

    Args:
      config: The run's `config.schedule`: its `name`, "step" (multiplied by `factor` at each of
        `boundaries`), "cosine" (to zero at the end), or "constant" and "plateau" (whose divisions
        are in the state, see `Plateau`); `learning_rate`; `warmup_steps`, during which the rate
        grows linearly and reaches `learning_rate` with the last of them (Goyal et al., arXiv
        1706.02677, section 2.2), or stays at `warmup_learning_rate` where that is given (the
        paper's way with 110 layers, section 4.2).
      total_steps: Length of the run.

    Raises:
      InputError: There is no such schedule, or its numbers contradict one another.
    """
    warmup, peak = config.warmup_steps, config.learning_rate
    if not 0 <= warmup < total_steps:
        raise InputError(f"schedule.warmup_steps is {warmup}; it must be in [0, {total_steps})")
    match config.name:
        case "constant" | "plateau":
            main = optax.constant_schedule(peak)
        case "cosine":
            main = optax.cosine_decay_schedule(peak, total_steps - warmup)
        case "step":
            boundaries = list(config.boundaries)
            if boundaries != sorted(set(boundaries)) or any(b <= warmup for b in boundaries):
                raise InputError(
                    f"schedule.boundaries is {tuple(boundaries)}; they must increase, "
                    f"and lie after the {warmup} steps of the warm-up"
                )
            main = optax.piecewise_constant_schedule(
                peak, {boundary - warmup: config.factor for boundary in boundaries}
            )
        case name:
            raise unknown("schedule", name, ("step", "plateau", "cosine", "constant"))
    if warmup:
        if config.warmup_learning_rate is not None:
            rise = optax.constant_schedule(config.warmup_learning_rate)
        else:  # the first step of the warm-up is not one of rate 0
            rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
        main = optax.join_schedules([rise, main], [warmup])

    def schedule(step: Int[Array, ""]) -> Float[Array, ""]:
        with jax.numpy_dtype_promotion("standard"):  # optax mixes its steps with its rates
            return jnp.asarray(main(step), jnp.float32)

    return schedule


class Plateau(struct.PyTreeNode):
    """Divides the learning rate when the error plateaus (section 3.4 of the paper).

    It is a part of the state, so that an interrupted run divides when it would have divided.
    """

    scale: Float[Array, ""] | np.float32  # factor of the schedule's rate
    best: Float[Array, ""] | np.float32  # the least top-1 error of an evaluation, in percent
    waited: Int[Array, ""] | np.int32  # evaluations since then, or since the last division

    @classmethod
    def start(cls) -> Self:
        """Returns the state before the first evaluation."""
        return cls(np.float32(1), np.float32(np.inf), np.int32(0))

    @classmethod
    def from_json(cls, values: Mapping[str, float]) -> Self:
        """Returns what `as_json` gave."""
        best, scale = np.float32(values["best"]), np.float32(values["scale"])
        return cls(scale, best, np.int32(values["waited"]))

    def as_json(self) -> dict[str, float]:
        """Returns the numbers by name."""
        return {name: value.item() for name, value in dataclasses.asdict(self).items()}

    def after(self, top1_error: float, config: ConfigDict) -> Self:
        """Returns the state after an evaluation.

        Args:
          top1_error: Its top-1 error in percent.
          config: The run's `config.schedule`: after `patience` evaluations that are not at least
            `min_improvement` percentage points below the best one, the rate is multiplied by
            `factor`; never below `learning_rate * min_scale`.
        """
        if top1_error < self.best - config.min_improvement:
            return self.replace(best=np.float32(top1_error), waited=np.int32(0))
        if self.waited + 1 < config.patience:
            return self.replace(waited=np.int32(self.waited + 1))
        scale = max(self.scale * config.factor, config.min_scale)
        return self.replace(scale=np.float32(scale), waited=np.int32(0))
