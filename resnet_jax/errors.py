"""Errors with a message for the user and an exit status for programs."""

import difflib
import sys
from collections.abc import Iterable
from typing import NoReturn


class InputError(ValueError):
    """The input is wrong; the message is one sentence that says how, and what would be right.

    Programs print the message alone and exit with status 2; in Python it is a `ValueError`.
    """

    exit_status = 2
    on_all_processes = False  # True where all processes of a run raise it


def exit_moved(command: str) -> NoReturn:
    """Ends a program that has become a command, with status 2 and its new name."""
    print(f"this program is now `python -m resnet_jax {command}`", file=sys.stderr)
    sys.exit(2)


def asks_for_package(error: ImportError) -> bool:
    """Whether an error says what has to be installed, such as a package for a kind of store."""
    return "install" in str(error).lower()


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Returns the error for a name that nothing has, with the nearest names that something has.

    Args:
      kind: The kind of thing, as a reader would call it ("model", "key of the config").
      name: The name that was given.
      known: Every name that would have been right.
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    return InputError(f"there is no {kind} {str(name)!r}; {hint}")
