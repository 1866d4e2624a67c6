"""Networks of checkpoints, as a run left them."""

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict, cast

import jax
import jax.numpy as jnp
from etils import epath
from flax import linen as nn
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax.checkpoints import Checkpoints, Layout, read_config
from resnet_jax.data import ImageSet, Source, Statistics, statistics_template
from resnet_jax.errors import InputError
from resnet_jax.evaluation.network import Variables

Which = int | Literal["newest", "best"]


class Description(TypedDict):
    """What a checkpoint says of itself, in JSON, beside its arrays: see `Trained`."""

    config: dict[str, object]
    class_names: Sequence[str]
    examples: int
    image_shape: Sequence[int]


class Trained(NamedTuple):
    """A network as a checkpoint holds it, with all it takes to use it.

    Attributes:
      step: Steps of training that it had.
      config: The run's config.
      class_names: What its logits stand for.
      image_shape: Height, width and channels of its images.
      model: The network.
      variables: Its `params` and `batch_stats`, on the host.
      statistics: What its images are normalised with.
    """

    step: int
    config: ConfigDict
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    model: nn.Module
    variables: Variables
    statistics: Statistics


def restore(workdir: epath.PathLike, which: Which = "newest") -> Trained:
    """Returns the network of a checkpoint, verified; nothing in the workdir is changed.

    The run's data need not be there.

    Args:
      workdir: The run.
      which: Step of the checkpoint, or the newest one, or the one with the least top-1 error.

    Raises:
      InputError: There is no such run or checkpoint, or it is damaged.
    """
    config = configs.complete(read_config(workdir))
    with Checkpoints(Layout(workdir).checkpoints, writable=False) as checkpoints:
        found = checkpoints.restore(which, {})
        if found is None:
            raise InputError(f"{workdir} has no complete checkpoint; train.py writes the first one")
        description = cast(Description, found.metadata)
        class_names = tuple(description["class_names"])
        height, width, channels = description["image_shape"]
        image_shape = (height, width, channels)
        model = configs.build_model(config, len(class_names))
        templates = {
            "variables": variables_template(model, image_shape),
            "measured": statistics_template(
                image_shape, mean=config.data.mean, color=config.data.color
            ).arrays(),
        }
        checkpoint = checkpoints.restore(found.step, templates)
    assert checkpoint is not None, "a step that is missing is refused"
    variables = checkpoint.items["variables"]
    statistics = Statistics(**checkpoint.items["measured"])
    return Trained(found.step, config, class_names, image_shape, model, variables, statistics)


def same_classes(images: ImageSet | Source, class_names: Sequence[str]) -> None:
    """Refuses images whose labels mean something else.

    Raises:
      InputError: Their classes are not these, in this order.
    """
    if tuple(images.class_names) == tuple(class_names):
        return
    there, here = len(class_names), len(images.class_names)
    pairs = enumerate(itertools.zip_longest(class_names, images.class_names))
    label, (old, new) = next((label, pair) for label, pair in pairs if pair[0] != pair[1])
    raise InputError(
        f"the images to evaluate on have other classes than those it was trained on ({here} and "
        f"{there}): label {label} is {new!r} in the former and {old!r} in the latter"
    )


def variables_template(model: nn.Module, image_shape: tuple[int, int, int]) -> Variables:
    """Returns the shapes and types of a network's `params` and `batch_stats`.

    Args:
      model: The network.
      image_shape: Height, width and channels of its images.
    """
    images = jnp.zeros((1, *image_shape))
    variables = jax.eval_shape(lambda key: model.init(key, images, train=False), jax.random.key(0))
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
