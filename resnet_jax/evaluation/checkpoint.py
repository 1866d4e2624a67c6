"""Evaluation of a checkpoint of a run."""

import itertools
import json
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict, cast

import jax
import jax.numpy as jnp
from etils import epath
from flax import linen as nn
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax import parallel
from resnet_jax.checkpoints import Checkpoints
from resnet_jax.data import ImageSet, Statistics, statistics_template
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


class Description(TypedDict):
    """What a checkpoint says of itself, in JSON, beside its arrays: see `Trained`."""

    config: dict[str, object]
    class_names: Sequence[str]
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
    trained = restore(workdir, which)
    config = trained.config
    split = split or config.data.eval_split
    batch_size = batch_size or config.eval_batch_size or config.batch_size
    replicas = parallel.Replicas(mapping or config.parallel)
    images = configs.load_images(config, split)
    same_classes(images, trained.class_names)

    evaluator = Evaluator(
        trained.model, images, trained.statistics, replicas, batch_size=batch_size
    )
    errors = evaluator(replicas.place(trained.variables))
    evaluation = Evaluation(trained.step, split, *errors)
    if parallel.is_primary():
        path = Layout(workdir).path / "evaluations" / f"{split}-{trained.step}.json"
        write_atomically(path, f"{json.dumps(evaluation._asdict())}\n".encode())
    return evaluation


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
    with Checkpoints(
        Layout(workdir).checkpoints,
        writable=False,
        primary=parallel.is_primary(),
        agree=parallel.agree,
    ) as checkpoints:
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


def same_classes(images: ImageSet, class_names: Sequence[str]) -> None:
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
