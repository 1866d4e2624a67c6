"""The leaves of a checkpoint, and those that one of before lacks."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from resnet_jax.checkpoints import Checkpoints, leaves
from resnet_jax.errors import InputError
from resnet_jax.training.run import Run
from tests.tiny import tiny_config

RUN = Path(__file__).parents[1] / "pins" / "run"  # of commit 3111d32


def test_leaves_are_named_by_item_path_type_and_shape():
    tree = {
        "params": [jnp.zeros((3, 4), jnp.bfloat16), np.int32(1)],
        "abstract": jax.ShapeDtypeStruct((2,), jnp.uint8),
        "none": {"x": None, "y": ()},
    }
    assert leaves.describe("training", tree) == {
        "training/abstract": "uint8[2]",
        "training/none": "empty",
        "training/params/0": "bfloat16[3,4]",
        "training/params/1": "int32[]",
    }
    assert leaves.describe("measured", np.zeros(2)) == {"measured": "float64[2]"}


def test_where_a_leaf_lives_makes_no_difference():
    array = jax.device_put(jnp.zeros((2, 2)), SingleDeviceSharding(jax.devices()[1]))
    assert leaves.describe("x", [array]) == leaves.describe("x", [np.zeros((2, 2), np.float32)])


def test_leaves_that_older_checkpoints_lack_have_their_value():
    shapes = Run.from_config(tiny_config()).checkpoint_template()
    window = shapes["training"]["window"]
    with Checkpoints(RUN / "checkpoints", writable=False) as checkpoints:
        checkpoint = checkpoints.restore(30, shapes)
        assert checkpoint is not None
        assert jax.tree.structure(checkpoint.items) == jax.tree.structure(shapes)
        restored = checkpoint.items["training"]["window"]
        assert restored["bad_step"].dtype == np.int32
        assert restored["bad_step"] == 0
        assert restored["steps"] == 0
        for name, leaf, there in [
            ("bad_step", jax.ShapeDtypeStruct((), np.bool_), r"int32\[\] in it, bool\[\]"),
            ("other", jax.ShapeDtypeStruct((), np.bool_), r"absent in it, bool\[\]"),
        ]:
            different = {**shapes["training"], "window": {**window, name: leaf}}
            with pytest.raises(InputError, match=f"training/window/{name} is {there} here"):
                checkpoints.restore(30, {"training": different})
