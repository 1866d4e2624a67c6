"""Evaluates a checkpoint: `python evaluate.py --workdir W [--step N | --best]`.

Prints one line of JSON: `step`, `split`, `examples`, `top1_error` and `top5_error` in percent,
`loss` in nats. Exit status: 0 done, 2 wrong input, 1 anything else.
"""

import json

from absl import flags

from resnet_jax import entry
from resnet_jax.errors import InputError
from resnet_jax.evaluation import evaluate
from resnet_jax.parallel import is_primary

WORKDIR = flags.DEFINE_string("workdir", None, "The run.", required=True)
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; by default the newest.")
BEST = flags.DEFINE_bool("best", False, "The checkpoint with the least top-1 error.")
SPLIT = flags.DEFINE_string("split", None, "Split of the data; by default the run's own.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images at a time.", lower_bound=1)


def main() -> None:
    """Evaluates what the flags say."""
    if BEST.value and STEP.value is not None:
        raise InputError("--step and --best each name a checkpoint; give one of them")
    which = "best" if BEST.value else "newest" if STEP.value is None else STEP.value
    evaluation = evaluate(
        WORKDIR.value, which=which, split=SPLIT.value, batch_size=BATCH_SIZE.value
    )
    if is_primary():
        print(json.dumps(evaluation._asdict()))


if __name__ == "__main__":
    entry.run(main)
