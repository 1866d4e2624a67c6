"""Checkpoints of before lack leaves that the state has since; these have a value of their own."""

from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax.checkpoints import Checkpoints
from resnet_jax.errors import InputError
from resnet_jax.training.run import Run
from resnet_jax.training.saved import templates
from tests.tiny import tiny_config

RUN = Path(__file__).parents[1] / "pins" / "run"  # of commit 3111d32


def test_leaves_that_older_checkpoints_lack_have_their_value():
    shapes = templates(Run.from_config(tiny_config()))
    window = shapes["training"]["window"]
    window["finite"] = jax.ShapeDtypeStruct((), np.bool_)
    with Checkpoints(RUN / "checkpoints", writable=False) as checkpoints:
        checkpoint = checkpoints.restore(30, shapes)
        assert checkpoint is not None
        assert jax.tree.structure(checkpoint.items) == jax.tree.structure(shapes)
        restored = checkpoint.items["training"]["window"]
        assert restored["finite"].dtype == np.bool_
        assert restored["finite"]
        assert restored["steps"] == 0
        for name, leaf, there in [
            ("finite", jax.ShapeDtypeStruct((), np.int32), r"bool\[\] in it, int32\[\]"),
            ("other", jax.ShapeDtypeStruct((), np.bool_), r"absent in it, bool\[\]"),
        ]:
            different = {**shapes["training"], "window": {**window, name: leaf}}
            with pytest.raises(InputError, match=f"training/window/{name} is {there} here"):
                checkpoints.restore(30, {"training": different})
