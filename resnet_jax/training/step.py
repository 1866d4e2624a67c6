"""One step of training, as one replica takes it."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from resnet_jax.data import Statistics, preprocess
from resnet_jax.parallel import AXIS
from resnet_jax.training.dropout import dropout_by_example
from resnet_jax.training.schedules import Schedule
from resnet_jax.training.state import TrainState, all_finite
from resnet_jax.training.transfer import frozen_statistics, keep_statistics, stop_gradients

AUXILIARY_WEIGHT = 0.3
"""Of the loss of each auxiliary head (Szegedy et al., arXiv 1409.4842, section 5)."""

StepMetrics = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, Mapping[str, Array]], tuple[TrainState, StepMetrics]]


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    statistics: Statistics,
    *,
    padding: int,
    label_smoothing: float,
    frozen: Sequence[str],
    seed: int,
    skips: bool = False,
) -> TrainStep:
    """Returns the step of one replica: `(state, its share of the batch) -> (state, metrics)`.

    It has to be mapped over the axis `parallel.AXIS`. One reduction over the replicas carries
    gradients, batch statistics and metrics together; the new state and the metrics (`loss`, in
    nats; `top1_error`, a share; `learning_rate`) are the same on all of them. The loss is what is
    minimised: where a network sows `auxiliary_logits`, their cross-entropies take part in it.

    Args:
      model: The network.
      optimizer: Gives the direction of descent.
      schedule: Gives the learning rate.
      statistics: Mean and standard deviation of the images.
      padding: Pixels around an image that random crops may take in.
      label_smoothing: Share of the target that is spread evenly over all classes (Szegedy et al.,
        arXiv 1512.00567, section 7).
      frozen: Modules whose parameters get no gradient, and whose batch normalisation uses its
        running statistics.
      seed: Decides, with the step and the row in the global batch, what dropout drops.
      skips: Whether a step with a number that is infinite or NaN changes nothing of the state but
        its step. The metrics have `finite` then.
    """

    def step(state: TrainState, batch: Mapping[str, Array]) -> tuple[TrainState, StepMetrics]:
        images = preprocess(batch, statistics, padding=padding)
        labels = batch["label"]
        rngs = {"dropout": jax.random.fold_in(jax.random.key(seed), state.step)}
        rows = lax.axis_index(AXIS) * labels.shape[0] + jnp.arange(labels.shape[0])

        def loss_of(params):
            with frozen_statistics(frozen), dropout_by_example(rows):
                logits, updates = model.apply(
                    {
                        "params": stop_gradients(params, frozen),
                        "batch_stats": state.batch_stats,
                    },
                    images,
                    train=True,
                    mutable=["batch_stats", "auxiliary_logits"],
                    rngs=rngs,
                )
            loss = cross_entropy(logits, labels, label_smoothing)
            for auxiliary in jax.tree.leaves(updates.get("auxiliary_logits", {})):
                loss += AUXILIARY_WEIGHT * cross_entropy(auxiliary, labels, label_smoothing)
            return loss, (logits, updates.get("batch_stats", {}))

        (loss, (logits, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            state.params
        )
        top1_error = jnp.mean(jnp.argmax(logits, axis=-1) != labels, dtype=jnp.float32)
        gradients, batch_stats, loss, top1_error = lax.pmean(
            (gradients, batch_stats, loss, top1_error), AXIS
        )
        batch_stats = keep_statistics(batch_stats, state.batch_stats, frozen)

        learning_rate = schedule(state.step) * state.plateau.scale
        direction, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(lambda p, d: p - learning_rate * d, state.params, direction)
        # All of them, because XLA on CPUs can lose a NaN between a rectification and the loss.
        finite = all_finite((loss, gradients, params, batch_stats))
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            plateau=state.plateau,
            window=state.window.add(state.step + 1, loss, top1_error, finite),
        )
        metrics = {"loss": loss, "top1_error": top1_error, "learning_rate": learning_rate}
        if skips:
            before = state.replace(step=new_state.step)
            new_state = jax.tree.map(functools.partial(jnp.where, finite), new_state, before)
            metrics["finite"] = finite
        return new_state, metrics

    return step


def cross_entropy(
    logits: Float[Array, "n classes"], labels: Int[Array, " n"], label_smoothing: float = 0.0
) -> Float[Array, ""]:
    """Returns the mean cross-entropy between the labels, smoothed, and the predictions, in nats."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    if label_smoothing == 0:
        return loss
    against_all = -jax.nn.log_softmax(logits).mean()  # the loss of an even target
    return (1 - label_smoothing) * loss + label_smoothing * against_all
