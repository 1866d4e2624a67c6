"""Evaluation of a checkpoint of a run."""

import json
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from flax import linen as nn
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax import parallel
from resnet_jax.checkpoints import Checkpoints
from resnet_jax.data import Statistics, statistics_template
from resnet_jax.errors import InputError
from resnet_jax.evaluation.single_crop import Evaluator, Variables
from resnet_jax.files import write_atomically
from resnet_jax.workdir import Layout, read_config

Which = int | Literal["newest", "best"]


class Evaluation(NamedTuple):
    """The errors of a checkpoint.

    Attributes:
      step: Steps of training that it had.
      split: Split of the data that it was evaluated on.
      examples: Number of images, each seen once.
      top1_error: In percent.
      top5_error: In percent.
      loss: Mean cross-entropy, in nats.
    """

    step: int
    split: str
    examples: int
    top1_error: float
    top5_error: float
    loss: float


class Trained(NamedTuple):
    """What a checkpoint holds of a network.

    Attributes:
      step: Steps of training that it had.
      variables: Its `params` and `batch_stats`, on the host.
      statistics: What its images are normalised with.
    """

    step: int
    variables: Variables
    statistics: Statistics


def evaluate(
    workdir: epath.PathLike,
    *,
    which: Which = "newest",
    split: str | None = None,
    batch_size: int | None = None,
    mapping: parallel.Mapping | None = None,
) -> Evaluation:
    """Evaluates a checkpoint of a run, and keeps the result in `workdir/evaluations/`.

    Every image is seen exactly once, by any number of devices. The run may be going on: its
    checkpoints are only read.

    Args:
      workdir: The run.
      which: Step of the checkpoint, or the newest one, or the one with the least top-1 error.
      split: Split of the data; by default the run's `data.eval_split`.
      batch_size: Images at a time, over all devices; by default the run's.
      mapping: "pmap" or "shard_map"; by default the run's.

    Raises:
      InputError: There is no such run, checkpoint or split.
    """
    config = configs.complete(read_config(workdir))
    split = split or config.data.eval_split
    batch_size = batch_size or config.eval_batch_size or config.batch_size
    replicas = parallel.Replicas(mapping or config.parallel)
    images = configs.load_images(config, split)
    model = configs.build_model(config, len(images.class_names))

    trained = restore(workdir, which, model, config, images.image_shape)
    evaluator = Evaluator(model, images, trained.statistics, replicas, batch_size=batch_size)
    errors = evaluator(replicas.place(trained.variables))
    evaluation = Evaluation(trained.step, split, *errors)
    if parallel.is_primary():
        path = Layout(workdir).path / "evaluations" / f"{split}-{trained.step}.json"
        write_atomically(path, f"{json.dumps(evaluation._asdict())}\n".encode())
    return evaluation


def restore(
    workdir: epath.PathLike,
    which: Which,
    model: nn.Module,
    config: ConfigDict,
    image_shape: tuple[int, int, int],
) -> Trained:
    """Returns the network of a checkpoint, verified; nothing in the workdir is changed.

    Args:
      workdir: The run.
      which: Step of the checkpoint, or the newest one, or the one with the least top-1 error.
      model: The network.
      config: The run's config.
      image_shape: Height, width and channels of its images.

    Raises:
      InputError: There is no such checkpoint, or it is damaged or of another network.
    """
    templates = {
        "variables": variables_template(model, image_shape),
        "measured": statistics_template(image_shape, mean=config.data.mean),
    }
    with Checkpoints(
        Layout(workdir).checkpoints,
        writable=False,
        primary=parallel.is_primary(),
        agree=parallel.agree,
    ) as checkpoints:
        checkpoint = checkpoints.restore(which, templates)
    if checkpoint is None:
        raise InputError(f"{workdir} has no complete checkpoint; train.py writes the first one")
    return Trained(checkpoint.step, checkpoint.items["variables"], checkpoint.items["measured"])


def variables_template(model: nn.Module, image_shape: tuple[int, int, int]) -> Variables:
    """Returns the shapes and types of a network's `params` and `batch_stats`.

    Args:
      model: The network.
      image_shape: Height, width and channels of its images.
    """
    images = jnp.zeros((1, *image_shape))
    variables = jax.eval_shape(lambda key: model.init(key, images, train=False), jax.random.key(0))
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
