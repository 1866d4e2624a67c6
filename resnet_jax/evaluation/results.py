"""Evaluation of runs, of weights, and of several networks together."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import TypedDict, Unpack

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax import interop, parallel
from resnet_jax.checkpoints import Json, Layout
from resnet_jax.data import BadRecords, Source, load_source
from resnet_jax.errors import InputError
from resnet_jax.evaluation.batches import ViewReader
from resnet_jax.evaluation.engine import predict
from resnet_jax.evaluation.metrics import (
    Predictions,
    check_outputs,
    measure,
    write_per_class,
    write_predictions,
)
from resnet_jax.evaluation.network import (
    Network,
    Which,
    network_of_weights,
    restore,
    same_classes,
)
from resnet_jax.evaluation.precise import precise_batch_stats
from resnet_jax.evaluation.protocol import Protocol
from resnet_jax.files import write_atomically
from resnet_jax.models import compiler_options
from resnet_jax.parallel import Replicas


class Options(TypedDict, total=False):
    """Options of an evaluation; each may be left out.

    Attributes:
      split: Split of the data; by default `data.eval_split` of the (first) network's config.
      batch_size: Images at a time, over all devices; by default the config's. Views that are larger
        than the network's images, or mirrored too, are as many fewer as their pixels are more.
      protocol: The views of an image; by default the centre, as during training.
      precise_bn: On how many training images the batch statistics are recomputed, for this
        evaluation, as exact averages; see `precise_batch_stats`.
      predictions: A file for the five most probable classes of each image: a line of JSON with
        `key`, `label`, `top5` and `probabilities`, in the order of the data.
      per_class: A file, `.csv` or `.json`, for the errors of each class.
      quiet: Draw no bar on the terminal.
    """

    split: str | None
    batch_size: int | None
    protocol: Protocol | None
    precise_bn: int | None
    predictions: epath.PathLike | None
    per_class: epath.PathLike | None
    quiet: bool


@dataclasses.dataclass(frozen=True)
class Result:
    """The metrics of a network, or of several together, on a split of the data.

    Every metric is an attribute too: `result.top1_error`.

    Attributes:
      split: The split.
      metrics: `examples`, the number of images, `top1_error` and `top5_error` in percent, and
        `loss`, the mean cross-entropy in nats: all of `resnet_jax.evaluation.metrics`.
      step: Of a run: steps of training that its network had.
      weights: Of weights: where they come from.
      networks: Of several networks: `name`, `step` and `protocol` of each.
      protocol: Of one network: `name`, `views` and their numbers, and `interpolation`; with
        multi_scale `shapes`, for how many shapes of views a program was compiled (by the first
        process); and `precise_bn`, on how many images the statistics were recomputed.
    """

    split: str
    metrics: dict[str, float]
    step: int | None = None
    weights: str | None = None
    networks: list[dict[str, Json]] | None = None
    protocol: dict[str, Json] | None = None

    def __getattr__(self, name: str) -> float:
        """Returns a metric by its name."""
        try:
            return vars(self)["metrics"][name]
        except KeyError:
            raise AttributeError(f"there is no metric {name}") from None

    def as_json(self) -> dict[str, Json]:
        """Returns what is printed and written: all that is known, the metrics among it."""
        values: dict[str, Json] = {
            "step": self.step,
            "weights": self.weights,
            "networks": None if self.networks is None else [*self.networks],
            "split": self.split,
            **self.metrics,
            "protocol": self.protocol,
        }
        return {key: value for key, value in values.items() if value is not None}


def evaluate(
    workdir: epath.PathLike, *, which: Which = "newest", **options: Unpack[Options]
) -> Result:
    """Evaluates a checkpoint of a run, and writes the result to `workdir/evaluations/`.

    Every image counts exactly once, for any number of devices and processes. The run may be going
    on: its checkpoints are only read. The checkpoint is chosen as in `restore`; for the options see
    `Options`.

    Raises:
      InputError: There is no such run, checkpoint or split, the result could not be written, or
        what `evaluate_ensemble` refuses.
    """
    network = restore(workdir, which)
    results = Layout(workdir).path / "evaluations"
    split, metrics, (protocol,) = _evaluate([network], options, results / "any.json")
    result = Result(split, metrics, step=network.step, protocol=protocol)
    if parallel.is_primary():
        # A name of its own for each protocol; that of the usual one is split and step.
        precise_bn = protocol.get("precise_bn")
        label = (options.get("protocol") or Protocol()).label
        precise = precise_bn and f"precise_bn{precise_bn}"
        parts = filter(None, (f"{split}-{network.step}", label, precise))
        path = results / f"{'-'.join(map(str, parts))}.json"
        write_atomically(path, f"{json.dumps(result.as_json())}\n".encode())
    return result


def evaluate_weights(
    source: epath.PathLike,
    config: ConfigDict,
    *,
    preprocessing: interop.Preprocessing | None = None,
    **options: Unpack[Options],
) -> Result:
    """Evaluates weights with their own preprocessing, see `network_of_weights` and `Options`.

    Raises:
      InputError: The weights or the data cannot be read, or do not belong together, or what
        `evaluate_ensemble` refuses.
    """
    network = network_of_weights(source, config, preprocessing=preprocessing)
    split, metrics, (protocol,) = _evaluate([network], options)
    return Result(split, metrics, weights=network.name, protocol=protocol)


def evaluate_ensemble(networks: Sequence[Network], **options: Unpack[Options]) -> Result:
    """Evaluates the mean of the probabilities of several networks, as in table 5 of the paper.

    Every image counts exactly once, for any number of devices and processes.

    The networks are those of `restore` and `network_of_weights`, each sees images as they are
    prepared for it, and the data are those of the first one's config; for the rest see `Options`.

    Raises:
      InputError: Networks, data and options do not belong together, a network holds values that are
        not numbers, or an image cannot be decoded.
    """
    split, metrics, protocols = _evaluate(networks, options)
    described: list[dict[str, Json]] = [
        {"name": network.name, "step": network.step, "protocol": protocol}
        for network, protocol in zip(networks, protocols, strict=True)
    ]
    return Result(split, metrics, networks=described)


def _evaluate(
    networks: Sequence[Network], options: Options, *outputs: epath.Path
) -> tuple[str, dict[str, float], list[dict[str, Json]]]:
    """Returns the split, the metrics, and for each network how it saw the images.

    The outputs are files that will be written, besides those of the options.
    """
    config = networks[0].config
    protocol = options.get("protocol") or Protocol()
    split = options.get("split") or config.data.eval_split
    forms = {network.config.model.lowering for network in networks}
    form = "fast" if forms == {"fast"} else "plain"
    compiled = compiler_options(form, configs.DTYPES[config.dtype])
    replicas = Replicas(config.parallel, compiler_options=compiled)
    predictions_path, per_class_path = options.get("predictions"), options.get("per_class")
    precise_bn, data = options.get("precise_bn"), config.data
    with parallel.agree_on_input():
        check_outputs(predictions_path, per_class_path, *outputs)
        source = load_source(data.source, split, name=data.name, path=data.path, once=parallel.once)
        if not len(source):
            raise InputError("the data set has no examples")
        for network in networks:
            _check(network, networks[0], source)
            protocol.check(network.model)
    protocols = [protocol.describe(network.preparation) for network in networks]
    if precise_bn is not None:
        recomputed = [_recompute(network, precise_bn, replicas) for network in networks]
        networks = [network for network, _ in recomputed]
        for description, (_, images) in zip(protocols, recomputed, strict=True):
            description["precise_bn"] = images
    batch_size = options.get("batch_size") or config.eval_batch_size or config.batch_size
    rows = replicas.rows(replicas.round_up(batch_size))
    reader = ViewReader(source, parallel.share(len(source)), workers=data.workers)
    predictions, shapes = predict(
        networks,
        protocol,
        reader,
        replicas.here(),
        batch_size=rows.stop - rows.start,
        quiet=options.get("quiet", True) or not parallel.is_primary(),
    )
    if protocol.name == "multi_scale":
        for description, count in zip(protocols, shapes, strict=True):
            description["shapes"] = count
    predictions = Predictions(*(parallel.gather(column, len(source)) for column in predictions))
    metrics = measure(predictions)
    if math.isnan(metrics["loss"]):
        names = " and ".join(network.name for network in networks)
        raise InputError(f"the outputs of {names} are not numbers (NaN), so they say nothing")
    # A network may have more classes than the data.
    more = map(str, range(len(source.class_names), networks[0].num_classes))
    class_names = [*source.class_names, *more]
    if predictions_path is not None:
        keys = _gather_texts(reader.keys, len(source))
        if parallel.is_primary():
            write_predictions(predictions_path, predictions, keys, class_names)
    if per_class_path is not None and parallel.is_primary():
        write_per_class(per_class_path, predictions, class_names)
    return split, metrics, protocols


def _check(network: Network, first: Network, source: Source) -> None:
    """Refuses a network that does not fit the data or the first network, or that is not finite."""
    if network.channels not in (1, 3):
        raise InputError(
            f"{network.name} takes images of {network.channels} channels, and the data has 3"
        )
    if network.num_classes != first.num_classes:
        raise InputError(
            f"{network.name} knows {network.num_classes} classes and {first.name} "
            f"{first.num_classes}; only networks of the same classes can be averaged"
        )
    if network.class_names is not None:
        same_classes(source, network.class_names)
    elif network.num_classes != len(source.class_names):
        raise InputError(
            f"{network.name} knows {network.num_classes} classes, and the data has "
            f"{len(source.class_names)}"
        )
    for path, array in jax.tree_util.tree_leaves_with_path(network.variables):
        if not np.isfinite(array).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(
                f"{network.name} has values that are not numbers (NaN or infinite) in {name}; "
                "its training has diverged: evaluate an earlier checkpoint"
            )


def _recompute(network: Network, examples: int, replicas: Replicas) -> tuple[Network, int]:
    """Returns a network with precise batch statistics, and the number of images they are of.

    Training images that cannot be read are replaced by others, as in training.
    """
    config = network.config
    if config.init.freeze:
        raise InputError(
            f"{network.name} was trained with frozen modules ({', '.join(config.init.freeze)}), "
            "whose statistics stay as they are; it has no precise ones"
        )
    bad_records = BadRecords(config.data.train_split, config.data.max_bad_share)
    batch_stats, count = precise_batch_stats(
        network.model,
        network.variables,
        configs.load_images(config, config.data.train_split, bad_records),
        network.statistics,
        replicas,
        examples=examples,
        augmentation=configs.build_augmentation(config),
        group_size=config.batch_size,
        seed=config.seed,
    )
    variables = {**network.variables, "batch_stats": batch_stats}
    return network._replace(variables=variables), count


def _gather_texts(texts: list[str], examples: int) -> list[str]:
    """Returns the texts of all processes; they travel as numbers."""
    encoded = [text.encode(errors="surrogateescape") for text in texts]
    lengths = parallel.gather(np.array([len(text) for text in encoded], np.int32), examples)
    characters = np.zeros((len(encoded), int(lengths.max())), np.uint8)
    for row, text in zip(characters, encoded, strict=True):
        row[: len(text)] = np.frombuffer(text, np.uint8)
    return [
        row[:length].tobytes().decode(errors="surrogateescape")
        for row, length in zip(parallel.gather(characters, examples), lengths, strict=True)
    ]
