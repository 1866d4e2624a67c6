"""Evaluation of one network, or of several together."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Unpack

from etils import epath

from resnet_jax import config as configs
from resnet_jax import parallel
from resnet_jax.checkpoints import Json
from resnet_jax.data import BadRecords, Source, load_source
from resnet_jax.errors import InputError
from resnet_jax.evaluation.checkpoint import same_classes
from resnet_jax.evaluation.network import Network
from resnet_jax.evaluation.options import Options
from resnet_jax.evaluation.outputs import check_outputs
from resnet_jax.evaluation.per_class import check_per_class, write_per_class
from resnet_jax.evaluation.precise import precise_batch_stats
from resnet_jax.evaluation.predictions import write_predictions
from resnet_jax.evaluation.protocol import Protocol
from resnet_jax.evaluation.seen import see
from resnet_jax.evaluation.single_crop import Errors, Evaluator
from resnet_jax.parallel import Replicas


class Found(NamedTuple):
    """What an evaluation finds.

    Attributes:
      split: Split of the data.
      errors: The errors.
      protocols: For each network how images were shown to it: `name`, `views` and their numbers,
        and `interpolation`; with multi_scale `shapes`, for how many shapes of views a program was
        compiled (by the first process); and `precise_bn`, on how many images the statistics were
        measured anew.
    """

    split: str
    errors: Errors
    protocols: list[dict[str, Json]]


def evaluate_networks(networks: Sequence[Network], **options: Unpack[Options]) -> Found:
    """Evaluates a network, or the mean of the probabilities of several.

    Every image is seen exactly once, by any number of devices and processes.

    Args:
      networks: The networks; each sees images as they are prepared for it. The data are those of
        the first one's config.
      **options: See `Options`.

    Raises:
      InputError: Networks, data and options do not belong together, or an image cannot be decoded.
    """
    config = networks[0].config
    split = options.get("split") or config.data.eval_split
    batch_size = options.get("batch_size") or config.eval_batch_size or config.batch_size
    protocol = options.get("protocol") or Protocol()
    replicas = Replicas(options.get("mapping") or config.parallel)
    predictions, per_class = options.get("predictions"), options.get("per_class")
    _check_files(predictions, per_class)
    source = load_source(config.data.source, split, name=config.data.name, path=config.data.path)
    shown = []
    for network in networks:
        _check(network, networks[0], source)
        protocol.check(network.model)
        shown.append(protocol.shown(network.preparation))
    protocols = [how.description for how in shown]

    precise_bn = options.get("precise_bn")
    if precise_bn is not None:
        anew = [_measured_anew(network, precise_bn, replicas) for network in networks]
        networks = [network for network, _ in anew]
        protocols = [{**p, "precise_bn": n} for p, (_, n) in zip(protocols, anew, strict=True)]

    if len(networks) == 1 and protocol == Protocol() and predictions is None and per_class is None:
        errors = _numbers(_as_in_training(networks[0], split, replicas, batch_size), networks)
        return Found(split, errors, protocols)
    seen = see(
        networks,
        shown,
        source,
        replicas,
        batch_size=batch_size,
        workers=config.data.workers,
        quiet=options.get("quiet", True),
    )
    errors = _numbers(seen.outcomes.errors(), networks)
    if protocol.name == "multi_scale":
        protocols = [{**p, "shapes": n} for p, n in zip(protocols, seen.shapes, strict=True)]
    if parallel.is_primary():
        # A network may have more classes than the data.
        more = range(len(source.class_names), networks[0].num_classes)
        class_names = [*source.class_names, *map(str, more)]
        if predictions is not None:
            write_predictions(predictions, seen.outcomes, seen.keys, class_names)
        if per_class is not None:
            write_per_class(per_class, seen.outcomes, class_names)
    return Found(split, errors, protocols)


def _numbers(errors: Errors, networks: Sequence[Network]) -> Errors:
    """Returns the errors; refuses those of outputs that are not numbers.

    Raises:
      InputError: They are not.
    """
    if math.isnan(errors.loss):
        names = " and ".join(network.name for network in networks)
        raise InputError(f"the outputs of {names} are not numbers (NaN), so they say nothing")
    return errors


def _check_files(predictions: epath.PathLike | None, per_class: epath.PathLike | None) -> None:
    """Refuses before the work what could not be written after it."""
    if per_class is not None:
        check_per_class(per_class)
    paths = [epath.Path(path) for path in (predictions, per_class) if path is not None]
    if len(set(paths)) < len(paths):
        raise InputError(f"{predictions} cannot have both predictions and the errors of classes")
    check_outputs(paths)


def _check(network: Network, first: Network, source: Source) -> None:
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


def _as_in_training(network: Network, split: str, replicas: Replicas, batch_size: int) -> Errors:
    """Returns the errors of a single crop, to the last bit as a run's own evaluations find them."""
    images = configs.load_images(network.config, split)
    if images.image_shape[-1] != network.channels:
        raise InputError(
            f"{network.name} takes images of {network.channels} channels, and the data has "
            f"{images.image_shape[-1]}"
        )
    evaluator = Evaluator(
        network.model, images, network.statistics, replicas, batch_size=batch_size
    )
    return evaluator(replicas.place(network.variables))


def _measured_anew(network: Network, examples: int, replicas: Replicas) -> tuple[Network, int]:
    """Returns a network with precise batch statistics, and on how many images they were measured.

    Of training images that cannot be read others take the place, as in training.

    Raises:
      InputError: It has none, or some that are not its own.
    """
    config = network.config
    if config.init.freeze:
        raise InputError(
            f"{network.name} was trained with frozen modules ({', '.join(config.init.freeze)}), "
            "whose statistics stay as they are; it has no precise ones"
        )
    bad_records = BadRecords(config.data.train_split, config.data.max_bad_share)
    found = precise_batch_stats(
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
    variables = {**network.variables, "batch_stats": found.batch_stats}
    return network._replace(variables=variables), found.examples
