"""Commands run in this process, which has loaded their libraries already."""

import warnings
from typing import NamedTuple

from resnet_jax.cli import frame


class Ended(NamedTuple):
    """The exit status of a command and what it printed."""

    status: int
    out: str
    err: str


def run_command(capsys, name, *arguments):
    """Runs a command as `python -m resnet_jax NAME ARGUMENTS` does.

    Args:
      capsys: pytest's fixture.
      name: The command.
      arguments: Its command line.
    """
    status = 0
    with warnings.catch_warnings():
        # Of ml_collections, which loads the file of a config.
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        try:
            frame.run(name, [str(argument) for argument in arguments])
        except SystemExit as error:
            status = error.code or 0
    return Ended(status, *capsys.readouterr())
