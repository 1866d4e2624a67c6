"""Evaluation of the checkpoints of runs."""

import json
from typing import NamedTuple, Unpack

from etils import epath

from resnet_jax import parallel
from resnet_jax.checkpoints import Json, Layout
from resnet_jax.evaluation.checkpoint import Which, restore
from resnet_jax.evaluation.network import Network
from resnet_jax.evaluation.networks import evaluate_networks
from resnet_jax.evaluation.options import Options
from resnet_jax.evaluation.outputs import check_outputs
from resnet_jax.evaluation.protocol import Preparation, Protocol
from resnet_jax.files import write_atomically


class Evaluation(NamedTuple):
    """The errors of a checkpoint.

    Attributes:
      step: Steps of training that it had.
      split: Split of the data that it was evaluated on.
      examples: Number of images, each seen once.
      top1_error: In percent.
      top5_error: In percent.
      loss: Mean cross-entropy, in nats.
      protocol: How images were shown, see `Found.protocols`.
    """

    step: int
    split: str
    examples: int
    top1_error: float
    top5_error: float
    loss: float
    protocol: dict[str, Json]


def evaluate(
    workdir: epath.PathLike, *, which: Which = "newest", **options: Unpack[Options]
) -> Evaluation:
    """Evaluates a checkpoint of a run, and keeps the result in `workdir/evaluations/`.

    Every image is seen exactly once, by any number of devices. The run may be going on: its
    checkpoints are only read.

    Args:
      workdir: The run.
      which: Step of the checkpoint, or the newest one, or the one with the least top-1 error.
      **options: See `Options`.

    Raises:
      InputError: There is no such run, checkpoint or split, the result could not be kept, or what
        `evaluate_networks` refuses.
    """
    network = network_of_run(workdir, which)
    assert network.step is not None
    results = Layout(workdir).path / "evaluations"
    check_outputs([results / "any.json"])
    found = evaluate_networks([network], **options)
    evaluation = Evaluation(network.step, found.split, *found.errors, found.protocols[0])
    if parallel.is_primary():
        path = results / _file_name(evaluation, options)
        write_atomically(path, f"{json.dumps(evaluation._asdict())}\n".encode())
    return evaluation


def network_of_run(workdir: epath.PathLike, which: Which = "newest") -> Network:
    """Returns the network of a checkpoint, to evaluate it with others.

    Args:
      workdir: The run.
      which: Step of the checkpoint, or the newest one, or the one with the least top-1 error.

    Raises:
      InputError: There is no such run or checkpoint, or it is damaged.
    """
    trained = restore(workdir, which)
    data = trained.config.data
    size, _, channels = trained.image_shape
    return Network(
        name=str(workdir),
        step=trained.step,
        model=trained.model,
        variables=trained.variables,
        statistics=trained.statistics,
        preparation=Preparation(size, data.eval_resize or size, data.interpolation),
        channels=channels,
        class_names=trained.class_names,
        num_classes=trained.config.model.num_classes or len(trained.class_names),
        config=trained.config,
    )


def _file_name(evaluation: Evaluation, options: Options) -> str:
    """Returns a name of its own for each protocol; that of the usual one is split and step."""
    protocol = options.get("protocol") or Protocol()
    precise_bn = evaluation.protocol.get("precise_bn")
    parts = [
        f"{evaluation.split}-{evaluation.step}",
        protocol.label,
        "" if precise_bn is None else f"precise_bn{precise_bn}",
    ]
    return "-".join(filter(None, parts)) + ".json"
