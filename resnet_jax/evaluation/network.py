"""Networks of runs and of weights, with all that an evaluation needs."""

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict, cast

from etils import epath
from flax import linen as nn
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax import interop
from resnet_jax.checkpoints import Checkpoints, Layout, read_config
from resnet_jax.data import ImageSet, Source, Statistics, statistics_template
from resnet_jax.errors import InputError
from resnet_jax.evaluation.protocol import Preparation
from resnet_jax.models import variable_shapes

Which = int | Literal["newest", "best"]
Variables = dict[str, PyTree[Float[Array, "..."]]]


class Description(TypedDict):
    """The metadata of a checkpoint, in JSON, beside its arrays: see `Network`."""

    config: dict[str, object]
    class_names: Sequence[str]
    examples: int
    image_shape: Sequence[int]


class Network(NamedTuple):
    """A network of a run, or of weights from elsewhere.

    Attributes:
      name: The workdir, or the source of the weights.
      step: Steps of training that it had; None where that is not known.
      model: The network.
      variables: Its `params` and `batch_stats`, on the host.
      statistics: The mean and the deviation that normalise its images.
      preparation: How images for evaluation are prepared.
      channels: Channels of its images, 1 or 3.
      class_names: The classes of its logits; None where only their number is known.
      num_classes: The number of its logits.
      config: The data that it knows, and how images for training are prepared.
    """

    name: str
    step: int | None
    model: nn.Module
    variables: Variables
    statistics: Statistics
    preparation: Preparation
    channels: int
    class_names: tuple[str, ...] | None
    num_classes: int
    config: ConfigDict

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of its images."""
        return self.preparation.image_size, self.preparation.image_size, self.channels


def restore(workdir: epath.PathLike, which: Which = "newest") -> Network:
    """Returns the network of a checkpoint, verified; nothing in the workdir is changed.

    The run's data need not be there. `which` is the step of the checkpoint, or the newest one, or
    the one with the least top-1 error.

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
        model = configs.build_model(config, len(class_names))
        mean, color = config.data.mean, config.data.color
        statistics = statistics_template((height, width, channels), mean=mean, color=color)
        variables = variable_shapes(model, (height, width, channels))
        templates = {"variables": variables, "measured": statistics.arrays()}
        checkpoint = checkpoints.restore(found.step, templates)
    assert checkpoint is not None, "a step that is missing is refused"
    data = config.data
    return Network(
        name=str(workdir),
        step=found.step,
        model=model,
        variables=checkpoint.items["variables"],
        statistics=Statistics(**checkpoint.items["measured"]),
        preparation=Preparation(height, data.eval_resize or height, data.interpolation),
        channels=channels,
        class_names=class_names,
        num_classes=config.model.num_classes or len(class_names),
        config=config,
    )


def network_of_weights(
    source: epath.PathLike,
    config: ConfigDict,
    *,
    preprocessing: interop.Preprocessing | None = None,
) -> Network:
    """Returns the network of weights, on the data of a config.

    Args:
      source: The weights, as for `interop.load_pretrained`.
      config: The data, and the type and the devices of the computation; its network and its
        preparation of images are not used. A label is compared by its number.
      preprocessing: How images are prepared; by default as the source says, or as is usual with it.

    Raises:
      InputError: The weights cannot be read, or have another preprocessing.
    """
    dtype = configs.DTYPES[config.dtype]
    pretrained = interop.load_pretrained(source, preprocessing=preprocessing, dtype=dtype)
    size, resize, interpolation, *_ = pretrained.preprocessing
    config = configs.choose_lowering(config).copy_and_resolve_references()
    config.data.image_size = size
    config.data.eval_resize = resize
    config.data.interpolation = interpolation
    config.data.in_memory = pretrained.in_channels == 1  # only these keep one channel
    config.data.color = "none"
    config.init.freeze = ()
    return Network(
        name=pretrained.source,
        step=None,
        model=pretrained.network.clone(lowering=config.model.lowering),
        variables=pretrained.variables,
        statistics=pretrained.statistics(),
        preparation=Preparation(size, resize, interpolation),
        channels=pretrained.in_channels,
        class_names=None,
        num_classes=pretrained.network.num_classes,
        config=config,
    )


def is_run(source: epath.PathLike) -> bool:
    """Whether a source of weights is the workdir of a run."""
    return Layout(source).checkpoints.exists()


def weights_of_run(workdir: epath.PathLike, which: Which = "newest") -> interop.Weights:
    """Returns the network of a checkpoint as weights, to write under the names of other libraries.

    Its statistics count as those of as many batches as the run has made steps. The checkpoint is
    chosen as in `restore`.

    Raises:
      InputError: There is no such checkpoint, or its network is not one of this package.
    """
    network = restore(workdir, which)
    assert network.step is not None
    preprocessing = interop.of_statistics(network.statistics, **network.preparation._asdict())
    return interop.of_variables(
        network.model,
        network.variables,
        preprocessing,
        network.name,
        batches_tracked=network.step,
    )


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
