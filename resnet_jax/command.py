"""What commands share, above all those of `python -m resnet_jax...` that take no config."""

import argparse
import sys
from collections.abc import Callable
from typing import Literal, NoReturn

from resnet_jax.errors import InputError, asks_for_package


class Parser(argparse.ArgumentParser):
    """A parser that raises InputError, one sentence, where others print their usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        raise InputError(message)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose a checkpoint of a run, `--step` and `--best`."""
    parser.add_argument("--step", type=int, help="of a run: step of the checkpoint, or the newest")
    parser.add_argument("--best", action="store_true", help="of a run: the one with least error")


def chosen_checkpoint(step: int | None, *, best: bool) -> int | Literal["newest", "best"]:
    """Returns the checkpoint that `--step` and `--best` name.

    Raises:
      InputError: They name two.
    """
    if best and step is not None:
        raise InputError("--step and --best each name a checkpoint; give one of them")
    return "best" if best else "newest" if step is None else step


def run(name: str, main: Callable[[], object]) -> None:
    """Runs a command, whose exit status is 2 after wrong input, with one sentence that says so.

    So it is where a package has to be installed, such as that of a store.
    """
    try:
        main()
    except (InputError, ImportError) as error:
        if isinstance(error, ImportError) and not asks_for_package(error):
            raise
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
