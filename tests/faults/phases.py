"""The phases of a trainer, written by it, so that they are known when it was killed."""

import collections
import dataclasses
import functools
import os
import pathlib
import pkgutil
from collections.abc import Callable
from typing import Any

from resnet_jax.training.run import Run

_CHECKPOINTS, _LOGGING = "resnet_jax.checkpoints:Checkpoints", "resnet_jax.training.logging"
_FUNCTIONS = {
    "restore": [f"{_CHECKPOINTS}.restore"],
    # The second in the background, while steps are taken.
    "save": [f"{_CHECKPOINTS}.save", f"{_CHECKPOINTS}._finish"],
    "evaluation": ["resnet_jax.evaluation:Evaluator.__call__"],
    "mark": ["resnet_jax.checkpoints.manifest:write_evaluation"],
    "log": [f"{_LOGGING}:MetricsLog.write", f"{_LOGGING}:draw_curves"],
}

NAMES = ("start", "restore", "first step", "step", "save", "evaluation", "mark", "log")
"""From the outermost to the innermost; a trainer may be in several."""


@dataclasses.dataclass(frozen=True)
class Phases:
    """A file in which a process writes when a phase begins and ends."""

    path: pathlib.Path

    def inject(self) -> None:
        """Lets this process write."""
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def write(line: str) -> None:
            os.write(file, f"{line}\n".encode())

        write("+start")
        for name, targets in _FUNCTIONS.items():
            for target in targets:
                _replace(target, functools.partial(_written, write, name))
        method = Run.train_step

        def train_step(run: Run, statistics: Any) -> Any:
            take = method(run, statistics)
            pending = ["+step", "-first step"]
            write("+first step")

            def taken(state: Any, batch: Any) -> Any:
                result = take(state, batch)
                while pending:
                    write(pending.pop())
                return result

            return taken

        Run.train_step = train_step  # pyrefly: ignore

    def begun(self, name: str) -> int:
        """Returns how often a phase has begun."""
        return self._lines().count(f"+{name}")

    def last(self) -> str:
        """Returns the innermost phase that has begun and not ended."""
        count = collections.Counter(dict.fromkeys(NAMES[:1], 1))
        for line in self._lines():
            count[line[1:]] += 1 if line[0] == "+" else -1
        return max((name for name in NAMES if count[name] > 0), key=NAMES.index)

    def _lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


def _written(
    write: Callable[[str], None], name: str, function: Callable, *args: Any, **kwargs: Any
) -> Any:
    write(f"+{name}")
    try:
        return function(*args, **kwargs)
    finally:
        write(f"-{name}")


def _replace(target: str, wrapper: Callable) -> None:
    original = pkgutil.resolve_name(target)

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    module, _, name = target.partition(":")
    owner, _, attribute = name.rpartition(".")
    setattr(pkgutil.resolve_name(f"{module}:{owner}" if owner else module), attribute, replaced)
