"""What the commands of `python -m resnet_jax...` that take no config share."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from resnet_jax.errors import InputError


class Parser(argparse.ArgumentParser):
    """A parser that raises InputError, one sentence, where others print their usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        raise InputError(message)


def run(name: str, main: Callable[[], object]) -> None:
    """Runs a command, whose exit status is 2 after wrong input, with one sentence that says so.

    So it is where a package has to be installed, such as that of a store.
    """
    try:
        main()
    except (InputError, ImportError) as error:
        if isinstance(error, ImportError) and "install" not in str(error).lower():
            raise
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
