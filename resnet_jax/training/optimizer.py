"""Stochastic gradient descent with momentum and coupled weight decay."""

import jax
import optax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from resnet_jax.errors import unknown


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Returns the direction of descent; the step multiplies it by the learning rate.

    As in PyTorch, the velocity is one of gradients (`v = momentum * v + gradient`), and the rate
    applies to it as a whole. Caffe, with which the paper was made, has the rate inside the
    velocity; the two differ only for some steps after the rate changes.

    Args:
      config: The run's `config.optimizer`: `momentum`, `nesterov`, `weight_decay`, and
        `weight_decay_on`, what is decayed: "all" parameters (Caffe, and so the paper), or only
        "kernels" (those of convolutions and linear layers).

    Raises:
      InputError: `weight_decay_on` is none of these.
    """
    if config.weight_decay_on not in _COVERS:
        raise unknown("optimizer.weight_decay_on", config.weight_decay_on, _COVERS)
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=_COVERS[config.weight_decay_on]),
        optax.trace(decay=config.momentum, nesterov=config.nesterov),
    )


def _kernels(params: PyTree) -> PyTree[bool]:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


_COVERS = {"all": None, "kernels": _kernels}
