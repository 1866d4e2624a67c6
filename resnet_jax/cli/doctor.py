"""Measures a run and names the part that limits it: `doctor --config configs/NAME.py`.

It measures reading, decoding, the transfer to the devices and the step, each on its own, and all of
them together. Nothing is written, and the network learns nothing. Exit status: 0 done, 2 wrong
input.
"""

import math
import sys
from collections.abc import Sequence

from absl import flags

from resnet_jax.cli.frame import Flags
from resnet_jax.config import choose_lowering
from resnet_jax.doctor import describe, measure, report
from resnet_jax.errors import InputError
from resnet_jax.parallel import is_primary
from resnet_jax.training.run import Run


def main(arguments: Sequence[str]) -> None:
    """Measures the run and prints the report."""
    command = Flags(__doc__, arguments)
    config = command.define_config()
    seconds = command.add(
        flags.DEFINE_float,
        "seconds",
        20.0,
        "About how long all measurements take.",
        lower_bound=0.1,
        upper_bound=3600,
    )
    command.parse()
    if math.isnan(seconds.value):  # which no bound keeps out
        raise InputError(f"--seconds is {seconds.value}; it must be a number")
    say = _say if is_primary() else lambda line: None
    say("loading")
    run = Run.from_config(choose_lowering(config.value))
    findings = measure(run, seconds=seconds.value, say=say)
    say("")
    if is_primary():
        print(report(describe(run), findings))


def _say(line: str) -> None:
    """Prints a line to a terminal, which the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r{line:40}\r", end="", file=sys.stderr, flush=True)
