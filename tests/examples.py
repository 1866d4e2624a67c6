"""The examples that the steps of a run are given, as its processes see them."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from resnet_jax.data import Statistics
from resnet_jax.training.run import Run


@dataclasses.dataclass(frozen=True)
class Record:
    """A file in which a process writes, before each of its steps, the examples that it takes.

    Its images have to be in memory and all different, as those of the tiny run are.
    """

    path: pathlib.Path

    def inject(self) -> None:
        """Lets this process write."""
        method = Run.train_step

        def train_step(run: Run, statistics: Statistics) -> Any:
            take = method(run, statistics)
            mapping = run.config.parallel
            images, _ = run.train_images.read(np.arange(len(run.train_images)))
            numbers = {image.tobytes(): number for number, image in enumerate(images)}
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

            def recorded(state: Any, batch: Mapping[str, jax.Array]) -> Any:
                rows = {name: _rows(array, mapping) for name, array in batch.items()}
                taken = {
                    "step": int(state.step),
                    "examples": [numbers[image.tobytes()] for image in rows.pop("image")],
                    "draws": [_digest(row) for row in zip(*rows.values(), strict=True)],
                }
                os.write(file, json.dumps(taken).encode() + b"\n")
                return take(state, batch)

            return recorded

        Run.train_step = train_step  # pyrefly: ignore


Taken = dict[int, list[tuple[int, str]]]
"""By step, counted from 0: number and draws of each example that a process takes."""


def read(path: pathlib.Path) -> Taken:
    """Returns what a process has recorded; nothing if it ended before its first step."""
    lines = path.read_text().splitlines() if path.exists() else []
    taken = [json.loads(line) for line in lines]
    rows = {one["step"]: list(zip(one["examples"], one["draws"], strict=True)) for one in taken}
    assert list(rows) == list(range(min(rows, default=0), len(taken) + min(rows, default=0)))
    return rows


def merge(lives: Iterable[Taken]) -> Taken:
    """Returns the steps of several lives; one taken again has to have the same examples."""
    taken: Taken = {}
    for life in lives:
        for step, rows in life.items():
            assert taken.setdefault(step, rows) == rows, step
    return taken


def _rows(array: jax.Array, mapping: str) -> np.ndarray:
    """Returns the rows of this process."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.device.id)
    parts = [np.asarray(shard.data) for shard in shards]
    return np.concatenate([part[0] if mapping == "pmap" else part for part in parts])


def _digest(row: Iterable[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in row)).hexdigest()[:16]
