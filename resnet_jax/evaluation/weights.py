"""Evaluation of weights that others have trained, and runs as weights for others."""

from typing import NamedTuple, Unpack

from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax import interop
from resnet_jax.checkpoints import Json, Layout
from resnet_jax.evaluation.checkpoint import Which, restore
from resnet_jax.evaluation.network import Network
from resnet_jax.evaluation.networks import evaluate_networks
from resnet_jax.evaluation.options import Options
from resnet_jax.evaluation.protocol import Preparation


class WeightsEvaluation(NamedTuple):
    """The errors of weights.

    Attributes:
      weights: Where they come from.
      split: Split of the data that they were evaluated on.
      examples: Number of images, each seen once.
      top1_error: In percent.
      top5_error: In percent.
      loss: Mean cross-entropy, in nats.
      protocol: How images were shown, see `Found.protocols`.
    """

    weights: str
    split: str
    examples: int
    top1_error: float
    top5_error: float
    loss: float
    protocol: dict[str, Json]


def evaluate_weights(
    source: epath.PathLike,
    config: ConfigDict,
    *,
    preprocessing: interop.Preprocessing | None = None,
    **options: Unpack[Options],
) -> WeightsEvaluation:
    """Evaluates weights with their own preprocessing.

    Args:
      source: What `interop.load_pretrained` takes.
      config: Says which data, and in which type and on which devices to compute; its network, and
        how it prepares images for evaluation, are of no account. A label is compared by its number.
      preprocessing: What images have to go through; by default what the source says, or what is
        usual with it.
      **options: See `Options`.

    Raises:
      InputError: The weights or the data cannot be read, or do not belong together, or what
        `evaluate_networks` refuses.
    """
    network = network_of_weights(source, config, preprocessing=preprocessing)
    found = evaluate_networks([network], **options)
    return WeightsEvaluation(network.name, found.split, *found.errors, found.protocols[0])


def network_of_weights(
    source: epath.PathLike,
    config: ConfigDict,
    *,
    preprocessing: interop.Preprocessing | None = None,
) -> Network:
    """Returns the network of weights, to evaluate it with others; see `evaluate_weights`.

    Raises:
      InputError: The weights cannot be read, or have another preprocessing.
    """
    dtype = configs.DTYPES[config.dtype]
    pretrained = interop.load_pretrained(source, preprocessing=preprocessing, dtype=dtype)
    preprocessing = pretrained.preprocessing
    channels = pretrained.in_channels
    config = config.copy_and_resolve_references()
    config.data.image_size = preprocessing.image_size
    config.data.eval_resize = preprocessing.resize
    config.data.interpolation = preprocessing.interpolation
    config.data.in_memory = channels == 1  # grey images are kept so, and colours only pass once
    config.data.color = "none"
    config.init.freeze = ()
    return Network(
        name=pretrained.source,
        step=None,
        model=pretrained.network,
        variables=pretrained.variables,
        statistics=pretrained.statistics(),
        preparation=Preparation(
            preprocessing.image_size, preprocessing.resize, preprocessing.interpolation
        ),
        channels=channels,
        class_names=None,
        num_classes=pretrained.network.num_classes,
        config=config,
    )


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
      InputError: There is no such checkpoint, or its network is of a class of its own.
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
