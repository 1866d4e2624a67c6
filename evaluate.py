"""Evaluates a checkpoint: `python evaluate.py --workdir W [--step N | --best]`.

Or weights of others, on the data of a config: `python evaluate.py --weights W [--config C]`.

Prints one line of JSON: `step` (or `weights`), `split`, `examples`, `top1_error` and `top5_error`
in percent, `loss` in nats. Exit status: 0 done, 2 wrong input, 1 anything else.
"""

import json
import pathlib

from absl import flags

from resnet_jax import entry
from resnet_jax.errors import InputError
from resnet_jax.evaluation import evaluate, evaluate_weights
from resnet_jax.parallel import is_primary

CONFIG = entry.define_config(pathlib.Path(__file__).parent / "configs" / "imagenet.py")
WORKDIR = flags.DEFINE_string("workdir", None, "The run.")
WEIGHTS = flags.DEFINE_string("weights", None, "A file, a folder, or owner/name of the hub.")
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; by default the newest.")
BEST = flags.DEFINE_bool("best", False, "The checkpoint with the least top-1 error.")
SPLIT = flags.DEFINE_string("split", None, "Split of the data; by default the run's own.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images at a time.", lower_bound=1)


def main() -> None:
    """Evaluates what the flags say."""
    if BEST.value and STEP.value is not None:
        raise InputError("--step and --best each name a checkpoint; give one of them")
    which = "best" if BEST.value else "newest" if STEP.value is None else STEP.value
    options = {"split": SPLIT.value, "batch_size": BATCH_SIZE.value}
    match WORKDIR.value, WEIGHTS.value, which:
        case str(workdir), None, _:
            evaluation = evaluate(workdir, which=which, **options)
        case None, str(weights), "newest":
            evaluation = evaluate_weights(weights, CONFIG.value, **options)
        case _:
            raise InputError(
                "give --workdir, with --step or --best if wanted; or --weights and a --config"
            )
    if is_primary():
        print(json.dumps(evaluation._asdict()))


if __name__ == "__main__":
    entry.run(main)
