"""Trains a network: `train --workdir W [--config configs/NAME.py] [--config.KEY=VALUE ...]`.

The same command goes on where the run was interrupted. Exit status: 0 done, 2 wrong input, 75 ended
by a signal and saved, after another process, or as another trainer is at work (start it again), 134
ended by jax after another process, 1 anything else.
"""

from collections.abc import Sequence

from absl import flags

from resnet_jax import training
from resnet_jax.checkpoints import Layout, finished_steps
from resnet_jax.cli.frame import Flags

RESUME = "; the same command goes on from the newest checkpoint"


def main(arguments: Sequence[str]) -> None:
    """Trains what the arguments say."""
    command = Flags(__doc__, arguments)
    workdir = command.add(
        flags.DEFINE_string, "workdir", None, "Where the run keeps everything.", required=True
    )
    begin_anew = command.add(
        flags.DEFINE_bool,
        "begin_anew",
        False,
        "Begin at the first step where all checkpoints of the workdir are damaged.",
    )
    lock_timeout = command.add(
        flags.DEFINE_float,
        "lock_timeout",
        60.0,
        "Seconds to wait for another trainer in the workdir to end.",
        lower_bound=0.0,
    )
    config = command.define_config("digits.py")
    command.parse()
    try:
        training.train(
            config.value,
            workdir.value,
            begin_anew=begin_anew.value,
            lock_timeout=lock_timeout.value,
        )
    except OSError as error:
        error.add_note(_saved(Layout(workdir.value)))
        raise


def _saved(layout: Layout) -> str:
    try:
        steps = finished_steps(layout.checkpoints)
    except OSError as error:
        return str(error)
    return f"all is saved up to step {steps[-1]}" if steps else "nothing has been saved"
