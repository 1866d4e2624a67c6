"""Evaluates a checkpoint: `python evaluate.py --workdir W [--step N | --best] [--protocol P]`.

Or weights of others, on the data of a config: `python evaluate.py --weights W [--config C]`. Of
several, `--workdir W1 --workdir W2`, the mean of the probabilities is evaluated, on the data of the
first run.

Prints one line of JSON: `step` (or `weights`, or `networks`), `split`, `examples`, `top1_error` and
`top5_error` in percent, `loss` in nats, and `protocol`, which views of an image were seen. Exit
status: 0 done, 2 wrong input, 130 stopped by Ctrl-C, 1 anything else.
"""

import json
import pathlib
from typing import get_args

from absl import flags

from resnet_jax import data, entry, evaluation
from resnet_jax.command import chosen_checkpoint
from resnet_jax.errors import InputError
from resnet_jax.parallel import is_primary

CONFIG = entry.define_config(pathlib.Path(__file__).parent / "configs" / "imagenet.py")
WORKDIR = flags.DEFINE_multi_string("workdir", [], "The run; of several, the mean is evaluated.")
WEIGHTS = flags.DEFINE_multi_string("weights", [], "A file, a folder, or owner/name of the hub.")
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; by default the newest.")
BEST = flags.DEFINE_bool("best", False, "The checkpoint with the least top-1 error.")
SPLIT = flags.DEFINE_string("split", None, "Split of the data; by default the run's own.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images at a time.", lower_bound=1)
PROTOCOL = flags.DEFINE_enum(
    "protocol",
    "single_crop",
    get_args(evaluation.ProtocolName),
    "The centre; ten crops; or whole images at several scales and their mirror images.",
)
RESIZE = flags.DEFINE_integer("resize", None, "Pixels of the shorter side.", lower_bound=1)
CROP = flags.DEFINE_integer("crop", None, "Pixels of a side of the crops.", lower_bound=1)
INTERPOLATION = flags.DEFINE_enum(
    "interpolation", None, get_args(data.Interpolation), "How images are resampled."
)
SCALES = flags.DEFINE_list("scales", None, "Pixels of the shorter side, as 224,256,384,480,640.")
PRECISE_BN = flags.DEFINE_integer(
    "precise_bn", None, "Training images to average batch statistics over, first.", lower_bound=1
)
PREDICTIONS = flags.DEFINE_string("predictions", None, "A file for the classes of each image.")
PER_CLASS = flags.DEFINE_string("per_class", None, "A .csv or .json for the errors of each class.")


def main() -> None:
    """Evaluates what the flags say."""
    which = chosen_checkpoint(STEP.value, best=BEST.value)
    options = evaluation.Options(
        split=SPLIT.value,
        batch_size=BATCH_SIZE.value,
        protocol=evaluation.read_protocol(
            PROTOCOL.value,
            resize=RESIZE.value,
            crop=CROP.value,
            interpolation=INTERPOLATION.value,
            scales=SCALES.value,
        ),
        precise_bn=PRECISE_BN.value,
        predictions=PREDICTIONS.value,
        per_class=PER_CLASS.value,
        quiet=False,
    )
    if not WEIGHTS.value and entry.config_given():
        raise InputError("a run has a config of its own; --config is for --weights")
    match WORKDIR.value, WEIGHTS.value:
        case [workdir], []:
            found = evaluation.evaluate(workdir, which=which, **options)
        case [], [weights] if which == "newest":
            found = evaluation.evaluate_weights(weights, CONFIG.value, **options)
        case workdirs, weights if workdirs or (weights and which == "newest"):
            networks = [evaluation.network_of_run(workdir, which) for workdir in workdirs]
            networks += [evaluation.network_of_weights(file, CONFIG.value) for file in weights]
            found = evaluation.evaluate_ensemble(networks, **options)
        case _:
            raise InputError(
                "give --workdir, with --step or --best if wanted; or --weights and a --config"
            )
    if is_primary():
        print(json.dumps(found._asdict()))


if __name__ == "__main__":
    entry.run(main)
