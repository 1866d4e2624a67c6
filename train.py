"""Trains a network: `python train.py --workdir W [--config configs/NAME.py] [--config.KEY=VALUE]`.

The same command goes on where it was interrupted. Exit status: 0 done, 2 wrong input, 75 ended by a
signal and saved (start it again), 1 anything else.
"""

import pathlib

from absl import flags

from resnet_jax import entry
from resnet_jax.training import train

flags.adopt_module_key_flags(entry)
CONFIG = entry.define_config(pathlib.Path(__file__).parent / "configs" / "digits.py")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run keeps everything.", required=True)

if __name__ == "__main__":
    entry.run(
        lambda: train(CONFIG.value, WORKDIR.value),
        stopped="stopped at once; the same command goes on from the newest checkpoint",
    )
