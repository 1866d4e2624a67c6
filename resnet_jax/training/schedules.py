"""Learning rates as functions of the step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from resnet_jax.errors import InputError, unknown

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]


def make_schedule(config: ConfigDict, total_steps: int) -> Schedule:
    """Returns the learning rate of a step, counted from 0.

    Args:
      config: The run's `config.schedule`: its `name`, "step" (multiplied by `factor` at each of
        `boundaries`, as in the paper), "cosine" (to zero at the end) or "constant";
        `learning_rate`; `warmup_steps`, over which the rate first grows linearly (Goyal et al.,
        arXiv 1706.02677, section 2.2), reaching `learning_rate` with the last of them.
      total_steps: Length of the run.

    Raises:
      InputError: There is no such schedule, or its numbers contradict one another.
    """
    warmup, peak = config.warmup_steps, config.learning_rate
    if not 0 <= warmup < total_steps:
        raise InputError(f"schedule.warmup_steps is {warmup}; it has to be in [0, {total_steps})")
    match config.name:
        case "constant":
            main = optax.constant_schedule(peak)
        case "cosine":
            main = optax.cosine_decay_schedule(peak, total_steps - warmup)
        case "step":
            boundaries = list(config.boundaries)
            if boundaries != sorted(set(boundaries)) or any(b <= warmup for b in boundaries):
                raise InputError(
                    f"schedule.boundaries is {tuple(boundaries)}; they have to increase, "
                    f"and to lie after the {warmup} steps of the warm-up"
                )
            main = optax.piecewise_constant_schedule(
                peak, {boundary - warmup: config.factor for boundary in boundaries}
            )
        case name:
            raise unknown("schedule", name, ("step", "cosine", "constant"))
    if warmup:
        # optax counts from the start value; the first step of the warm-up is not a step of rate 0.
        rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
        main = optax.join_schedules([rise, main], [warmup])

    def schedule(step: Int[Array, ""]) -> Float[Array, ""]:
        with jax.numpy_dtype_promotion("standard"):  # optax mixes its steps with its rates
            return jnp.asarray(main(step), jnp.float32)

    return schedule
