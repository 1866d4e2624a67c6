"""A run that ends in seconds: one residual block on digits of 8 pixels."""

from ml_collections import ConfigDict

from resnet_jax.config import base_config

_VALUES = {
    "model.name": "cifar_resnet8",
    "model.stage_sizes": (1,),
    "model.width": 4,
    "data.source": "digits",
    "data.image_size": 8,
    "data.augment": "pad_crop",
    "data.padding": 1,
    "batch_size": 16,
    "eval_batch_size": 64,
    "total_steps": 30,
    "schedule.boundaries": (20,),
    # These seldom meet, so that windows of the log straddle checkpoints and evaluations.
    "log_every": 7,
    "eval_every": 10,
    "checkpoint_every": 4,
}

SELDOM = {"log_every": 100, "eval_every": 100, "checkpoint_every": 100}
"""Logs, evaluates and saves at the end alone, which takes half the time."""


def tiny_config(**overrides: object) -> ConfigDict:
    """Returns its config.

    Args:
      **overrides: What is to be different; nested keys as in `**{"model.width": 8}`.
    """
    config = base_config()
    config.update_from_flattened_dict({**_VALUES, **overrides})
    return config


def get_config() -> ConfigDict:
    """Returns the same, for `train.py --config tests/tiny.py`."""
    return tiny_config()


def tiny_flags(**overrides: object) -> list[str]:
    """Returns the same as flags of `train.py`."""
    changes = [f"--config.{key}={value}" for key, value in overrides.items()]
    return [f"--config={__file__}", *changes]
