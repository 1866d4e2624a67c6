"""Training: the state, the step of one replica, and the loop around it."""

from resnet_jax.training.interruption import Interrupted
from resnet_jax.training.loop import DivergedError, train
from resnet_jax.training.state import TrainState, init_state
from resnet_jax.training.step import make_train_step

__all__ = ["DivergedError", "Interrupted", "TrainState", "init_state", "make_train_step", "train"]
