"""What is said to someone whose input is wrong."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The input is wrong; the message is one sentence that says how, and what would be right.

    The entry points print the message alone and exit with status 2; in a program of one's own it
    is a `ValueError`.
    """


class ProcessError(RuntimeError):
    """Another process of the run has failed; the message says how, and which."""


def asks_for_package(error: ImportError) -> bool:
    """Whether an error says what has to be installed, such as a package for a kind of store."""
    return "install" in str(error).lower()


def told(error: Exception) -> str:
    """Returns an error as text, for other processes."""
    kind = InputError if isinstance(error, InputError) else type(error)
    return f"{kind.__name__}: {error}"


def retold(text: str, process: int) -> InputError | ProcessError:
    """Returns the error that another process has told; it ends a program with the same status."""
    kind, _, message = text.partition(": ")
    if kind == InputError.__name__:
        return InputError(f"{message} (process {process})")
    return ProcessError(f"{text} (process {process})")


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Returns the error for a name that nothing has, with the nearest names that something has.

    Args:
      kind: What was looked for, as a reader would call it ("model", "key of the config").
      name: The name that was given.
      known: Every name that would have been right.
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    return InputError(f"there is no {kind} {str(name)!r}; {hint}")
