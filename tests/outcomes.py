"""What runs leave behind."""

import dataclasses
import functools
import json
import pathlib
from typing import Self

import jax
import numpy as np

from resnet_jax import config as configs
from resnet_jax.checkpoints import Checkpoints
from resnet_jax.training.run import Run
from tests.training.test_tensorboard import scalars


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All that a run leaves, but for times and names that differ in any two runs.

    Attributes:
      files: Names of the files outside of checkpoints and events, and of what lies beside the
        former.
      config: `config.json`.
      metrics: `metrics.jsonl`.
      curves: `report/curves.png`.
      scalars: What TensorBoard shows, but for speeds and times.
      checkpoints: The bytes of `read_checkpoints`.
    """

    files: list[str]
    config: bytes
    metrics: bytes
    curves: bytes
    scalars: list[tuple[int, str, float]]
    checkpoints: dict[int, dict[str, bytes]]

    @classmethod
    def of(cls, workdir: pathlib.Path) -> Self:
        """Reads it; every checkpoint is verified."""
        outside = [workdir, workdir / "report", workdir / "checkpoints"]
        files = [path for folder in outside for path in folder.iterdir()]
        return cls(
            files=sorted(str(p.relative_to(workdir)) for p in files if p.name != "set_aside"),
            config=(workdir / "config.json").read_bytes(),
            metrics=(workdir / "metrics.jsonl").read_bytes(),
            curves=(workdir / "report" / "curves.png").read_bytes(),
            scalars=[
                entry
                for entry in scalars(workdir / "tensorboard")
                if not entry[1].endswith("images_per_second") and not entry[1].startswith("time/")
            ],
            checkpoints={
                step: {name: leaf.tobytes() for name, leaf in leaves.items()}
                for step, leaves in read_checkpoints(workdir).items()
            },
        )


def read_checkpoints(workdir: pathlib.Path) -> dict[int, dict[str, np.ndarray]]:
    """Returns for each step the leaves of its checkpoint, by their names, types and shapes."""
    wanted = _templates((workdir / "config.json").read_bytes())
    found = {}
    with Checkpoints(workdir / "checkpoints", writable=False) as checkpoints:
        for step in checkpoints.steps():
            checkpoint = checkpoints.restore(step, wanted)
            assert checkpoint is not None
            found[step] = {
                f"{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}": np.asarray(leaf)
                for path, leaf in jax.tree_util.tree_leaves_with_path(checkpoint.items)
            }
    return found


@functools.cache
def _templates(config: bytes) -> dict:
    return Run.from_config(configs.complete(json.loads(config))).checkpoint_template()
