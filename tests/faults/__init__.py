"""Deaths at chosen moments, brought about from outside of what is tested."""

import dataclasses
import functools
import itertools
import os
import pathlib
import pkgutil
import signal
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NoReturn


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is to happen instead of a call.

    Attributes:
      target: The function, as in "os:replace".
      call: Which call of it: a pattern for its paths, strings and numbers with "|" between them,
        such as "*/config.json", of which the first is meant that fits.
      instead: What happens, one of the functions below; it is given the function and its arguments.
    """

    target: str
    call: str
    instead: Callable[..., Any]

    def inject(self) -> None:
        """Lets it happen in this process, once."""
        original = pkgutil.resolve_name(self.target)
        pending = [self.instead]

        @functools.wraps(original)
        def replaced(*args: Any, **kwargs: Any) -> Any:
            words = "|".join(str(a) for a in args if isinstance(a, int | str | os.PathLike))
            if pending and fnmatchcase(words, self.call):
                return pending.pop()(original, *args, **kwargs)
            return original(*args, **kwargs)

        module, _, name = self.target.partition(":")
        owner, _, attribute = name.rpartition(".")
        setattr(pkgutil.resolve_name(f"{module}:{owner}"), attribute, replaced)


def die() -> NoReturn:
    """Ends the process at once: nothing is flushed, closed or handled."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("alive after SIGKILL")


def die_before(function: Callable, *args: Any, **kwargs: Any) -> None:
    die()


def die_after(function: Callable, *args: Any, **kwargs: Any) -> None:
    function(*args, **kwargs)
    die()


def die_with_half_a_file(function: Callable, source: os.PathLike, target: os.PathLike) -> None:
    """For functions that put a new file into the place of an old one."""
    os.truncate(source, os.path.getsize(source) // 2)
    die()


def die_with_half_a_line(function: Callable, log: Any, step: int, split: str, values: Any) -> None:
    """For `MetricsLog.write`."""
    path = pathlib.Path(log._path)
    before = path.stat().st_size
    function(log, step, split, values)
    os.truncate(path, (before + path.stat().st_size) // 2)
    die()


def die_with_half_a_folder(function: Callable, folder: os.PathLike) -> None:
    """For functions that delete a folder."""
    files = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    for path in files[::2]:
        path.unlink()
    die()


def die_half_way(function: Callable, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """For functions that return an iterator."""
    items = list(function(*args, **kwargs))
    yield from itertools.islice(items, len(items) // 2)
    die()


def press_ctrl_c_twice(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Before and after the call."""
    signal.raise_signal(signal.SIGINT)
    result = function(*args, **kwargs)
    signal.raise_signal(signal.SIGINT)
    return result


_LOG = "resnet_jax.training.logging:MetricsLog.write"

# The tiny run logs at 7, 14, 21, 28, 30; evaluates at 10, 20, 30; saves at 4, 8, 10, 12, 16, 20,
# 24, 28, 30.
FAULTS = {
    "config half written": Fault("os:replace", "*|*/config.json", die_with_half_a_file),
    "first save half written": Fault("os:rename", "*|*/4.*/training", die_before),
    "manifest half written": Fault(
        "os:replace", "*|*/checkpoints/10/manifest.json", die_with_half_a_file
    ),
    "evaluation half done": Fault("resnet_jax.evaluation.engine:eval_batches", "", die_half_way),
    "save not in place": Fault("os:rename", "*|*/checkpoints/12", die_before),
    "old save out of place": Fault("os:rename", "*|*/removing/*", die_after),
    "old save half deleted": Fault("shutil:rmtree", "*/removing/*", die_with_half_a_folder),
    "line half written": Fault(_LOG, "14|train", die_with_half_a_line),
    "no manifest": Fault("os:rename", "*|*/checkpoints/16", die_after),
    "save half written": Fault("os:rename", "*|*/20.*/training", die_before),
    "evaluation not saved": Fault("resnet_jax.checkpoints:Checkpoints.save", "20", die_before),
    "evaluation not marked": Fault(
        "os:replace", "*|*/checkpoints/metric-20.json", die_with_half_a_file
    ),
    "manifest written": Fault("os:replace", "*|*/checkpoints/20/manifest.json", die_after),
    "newest not written": Fault("os:replace", "*|*/checkpoints/newest.json", die_before),
    "line not saved": Fault(_LOG, "21|train", die_after),
    "curves half drawn": Fault("os:replace", "*|*/curves.png", die_with_half_a_file),
    "no manifest of the last": Fault("os:rename", "*|*/checkpoints/30", die_after),
    # When a run goes on.
    "lines half removed": Fault("os:replace", "*|*/metrics.jsonl", die_with_half_a_file),
    "unfinished half deleted": Fault("shutil:rmtree", "*/12.*", die_with_half_a_folder),
    "not yet set aside": Fault("os:rename", "*|*/set_aside/*", die_before),
    "just set aside": Fault("os:rename", "*|*/set_aside/*", die_after),
}

# What happens only when a run goes on that died of another fault.
AFTER = {
    "lines half removed": "line not saved",
    "unfinished half deleted": "save not in place",
    "not yet set aside": "no manifest",
    "just set aside": "no manifest",
}
