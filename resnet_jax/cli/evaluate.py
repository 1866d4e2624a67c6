"""Evaluates a checkpoint: `evaluate --workdir W [--step N | --best] [--protocol P]`.

Or weights of others, on the data of a config: `--weights W [--config C]`. Of several,
`--workdir W1 --workdir W2`, the mean of the probabilities is evaluated, on the data of the first
run.

Prints one line of JSON: `step` (or `weights`, or `networks`), `split`, `examples`, `top1_error` and
`top5_error` in percent, `loss` in nats, and `protocol`, the views of an image that were evaluated.
Exit status: 0 done, 2 wrong input, 130 stopped by Ctrl-C, 1 anything else.
"""

import json
from collections.abc import Sequence
from typing import get_args

from absl import flags

from resnet_jax import data, evaluation
from resnet_jax.cli.frame import Flags, choose_checkpoint
from resnet_jax.errors import InputError
from resnet_jax.parallel import is_primary


def main(arguments: Sequence[str]) -> None:
    """Evaluates what the arguments say."""
    command = Flags(__doc__, arguments)
    config = command.define_config("imagenet.py")
    text, number = flags.DEFINE_string, flags.DEFINE_integer
    several, choice = flags.DEFINE_multi_string, flags.DEFINE_enum
    add = command.add
    add(several, "workdir", [], "The run; of several, the mean is evaluated.")
    add(several, "weights", [], "A file, a folder, or owner/name of the hub.")
    add(number, "step", None, "Step of the checkpoint; by default the newest.")
    add(flags.DEFINE_bool, "best", False, "The checkpoint with the lowest top-1 error.")
    add(text, "split", None, "Split of the data; by default the run's own.")
    add(number, "batch_size", None, "Images at a time.", lower_bound=1)
    add(
        choice,
        "protocol",
        "single_crop",
        get_args(evaluation.ProtocolName),
        "The centre; ten crops; or whole images at several scales and their mirror images.",
    )
    add(number, "resize", None, "Pixels of the shorter side.", lower_bound=1)
    add(number, "crop", None, "Pixels of a side of the crops.", lower_bound=1)
    kernels = get_args(data.Interpolation)
    add(choice, "interpolation", None, kernels, "How images are resampled.")
    add(flags.DEFINE_list, "scales", None, "Pixels of the shorter side, as 224,256,384,480,640.")
    precise = "Training images to average batch statistics over, first."
    add(number, "precise_bn", None, precise, lower_bound=1)
    add(text, "predictions", None, "A file for the classes of each image.")
    add(text, "per_class", None, "A .csv or .json for the errors of each class.")
    command.parse()
    values = command.values

    which = choose_checkpoint(values.step, best=values.best)
    options = evaluation.Options(
        split=values.split,
        batch_size=values.batch_size,
        protocol=evaluation.Protocol(
            values.protocol,
            values.resize,
            values.crop,
            values.interpolation,
            None if values.scales is None else list(map(_pixels, values.scales)),
        ),
        precise_bn=values.precise_bn,
        predictions=values.predictions,
        per_class=values.per_class,
        quiet=False,
    )
    if not values.weights and command.config_given:
        raise InputError("a run has a config of its own; --config is for --weights")
    match values.workdir, values.weights:
        case [workdir], []:
            result = evaluation.evaluate(workdir, which=which, **options)
        case [], [weights] if which == "newest":
            result = evaluation.evaluate_weights(weights, config.value, **options)
        case workdirs, weights if workdirs or (weights and which == "newest"):
            networks = [evaluation.restore(workdir, which) for workdir in workdirs]
            networks += [evaluation.network_of_weights(file, config.value) for file in weights]
            result = evaluation.evaluate_ensemble(networks, **options)
        case _:
            raise InputError(
                "give --workdir, with --step or --best if wanted; or --weights and a --config"
            )
    if is_primary():
        print(json.dumps(result.as_json()))


def _pixels(text: str) -> int:
    """Returns a number of pixels, of a scale."""
    if not (text.isascii() and text.isdecimal()):
        scales = ",".join(map(str, evaluation.SCALES))
        raise InputError(f"{text!r} is not a number of pixels; write scales as {scales}")
    return int(text)
