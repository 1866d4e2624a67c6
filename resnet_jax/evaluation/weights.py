"""Evaluation of weights that others have trained, and runs as weights for others."""

from typing import NamedTuple

from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax import interop, parallel
from resnet_jax.errors import InputError
from resnet_jax.evaluation.checkpoint import Which, restore
from resnet_jax.evaluation.single_crop import Evaluator
from resnet_jax.workdir import Layout


class WeightsEvaluation(NamedTuple):
    """The errors of weights.

    Attributes:
      weights: Where they come from.
      split: Split of the data that they were evaluated on.
      examples: Number of images, each seen once.
      top1_error: In percent.
      top5_error: In percent.
      loss: Mean cross-entropy, in nats.
    """

    weights: str
    split: str
    examples: int
    top1_error: float
    top5_error: float
    loss: float


def evaluate_weights(
    source: epath.PathLike,
    config: ConfigDict,
    *,
    split: str | None = None,
    batch_size: int | None = None,
    preprocessing: interop.Preprocessing | None = None,
) -> WeightsEvaluation:
    """Evaluates weights with their own preprocessing.

    Args:
      source: What `interop.load_pretrained` takes.
      config: Says which data, and in which type and on which devices to compute; its network, and
        how it prepares images, are of no account. A label is compared by its number.
      split: Split of the data; by default `config.data.eval_split`.
      batch_size: Images at a time, over all devices; by default the config's.
      preprocessing: What images have to go through; by default what the source says, or what is
        usual with it.

    Raises:
      InputError: The weights or the data cannot be read, or do not belong together.
    """
    dtype = configs.DTYPES[config.dtype]
    pretrained = interop.load_pretrained(source, preprocessing=preprocessing, dtype=dtype)
    preprocessing = pretrained.preprocessing
    channels = pretrained.in_channels
    split = split or config.data.eval_split
    config = config.copy_and_resolve_references()
    config.data.image_size = preprocessing.image_size
    config.data.eval_resize = preprocessing.resize
    config.data.interpolation = preprocessing.interpolation
    config.data.in_memory = channels == 1  # grey images are kept so, and colours only pass once
    images = configs.load_images(config, split)
    if not channels == images.image_shape[-1] == len(preprocessing.mean):
        raise InputError(
            f"{source} takes images of {channels} channels, the data has "
            f"{images.image_shape[-1]}, and what is subtracted has {len(preprocessing.mean)}"
        )
    if len(images.class_names) != pretrained.network.num_classes:
        raise InputError(
            f"{source} knows {pretrained.network.num_classes} classes, and the data has "
            f"{len(images.class_names)}"
        )
    replicas = parallel.Replicas(config.parallel)
    evaluator = Evaluator(
        pretrained.network,
        images,
        preprocessing.statistics(),
        replicas,
        batch_size=batch_size or config.eval_batch_size or config.batch_size,
    )
    errors = evaluator(replicas.place(pretrained.variables))
    return WeightsEvaluation(pretrained.source, split, *errors)


def is_run(source: epath.PathLike) -> bool:
    """Whether a source of weights is the workdir of a run."""
    return Layout(source).checkpoints.exists()


def weights_of_run(workdir: epath.PathLike, which: Which = "newest") -> interop.Weights:
    """Returns the network of a checkpoint, to write it in the names of others.

    Its statistics have seen as many batches as the run has made steps.

    Args:
      workdir: The run.
      which: Step of the checkpoint, or the newest one, or the one with the least top-1 error.

    Raises:
      InputError: There is no such checkpoint, or its network is no `ResNet`.
    """
    trained = restore(workdir, which)
    data = trained.config.data
    preprocessing = interop.of_statistics(
        trained.statistics,
        image_size=trained.image_shape[0],
        resize=data.eval_resize or trained.image_shape[0],
        interpolation=data.interpolation,
    )
    return interop.of_variables(
        trained.model,
        trained.variables,
        preprocessing,
        str(workdir),
        batches_tracked=trained.step,
    )
