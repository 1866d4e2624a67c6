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
    """Runs a command as `python -m resnet_jax NAME ARGUMENTS` does, or `python NAME.py ARGUMENTS`.

    Args:
      capsys: pytest's fixture.
      name: The command, or "train.py" or "evaluate.py".
      arguments: Its command line.
    """
    status, command = 0, name.removesuffix(".py")
    program = None if command == name else name
    with warnings.catch_warnings():
        # Of ml_collections, which loads the file of a config.
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        try:
            frame.run(command, [str(argument) for argument in arguments], name=program)
        except SystemExit as error:
            status = error.code or 0
    return Ended(status, *capsys.readouterr())
