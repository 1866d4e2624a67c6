"""What is refused, and in which words."""

import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from resnet_jax.checkpoints import Checkpoints
from resnet_jax.errors import InputError
from tests.checkpoints.trees import SMALL, assert_same, flip, listing, small, template


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"variables": {"w": jax.ShapeDtypeStruct((5,), jnp.float32)}},
            "variables/w is float32[4] in it, float32[5] here",
        ),
        (
            {"variables": {"w": jax.ShapeDtypeStruct((4,), jnp.bfloat16)}},
            "variables/w is float32[4] in it, bfloat16[4] here",
        ),
        (
            {"variables": {"v": jax.ShapeDtypeStruct((4,), jnp.float32)}},
            "variables/w is float32[4] in it, absent here",
        ),
        ({"variables": {}}, "variables/w is float32[4] in it, absent here"),
        (
            {"variables": {**SMALL["variables"], "x": {}}},
            "variables/x is absent in it, empty here",
        ),
    ],
)
def test_a_template_that_differs_is_refused(pair, wanted, message):
    with Checkpoints(pair) as checkpoints, pytest.raises(InputError) as error:
        checkpoints.restore("newest", wanted)
    assert str(error.value) == f"checkpoint 20 does not fit: {message}"


def test_what_jax_would_cast_is_refused(tmp_path):
    wide = {"variables": {"n": np.arange(3, dtype=np.int64)}}
    device = SingleDeviceSharding(jax.devices()[0])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, wide, {}, metric=None)
        with pytest.raises(InputError, match=r"variables/n is int64\[3\] in it, int32\[3\] here"):
            checkpoints.restore("newest", template(wide, device))
        checkpoint = checkpoints.restore("newest", template(wide))
    assert checkpoint is not None
    assert_same(checkpoint.items, wide)


def test_an_unknown_item_is_refused(pair):
    with (
        Checkpoints(pair) as checkpoints,
        pytest.raises(InputError, match="no item of checkpoint 20 'variable'; did you mean variab"),
    ):
        checkpoints.restore("newest", {"variable": SMALL["variables"]})


@pytest.mark.parametrize("writable", [True, False])
def test_a_step_that_is_missing_or_damaged_is_refused(pair, writable):
    before = listing(pair)
    with Checkpoints(pair, writable=writable) as checkpoints:
        with pytest.raises(InputError) as missing:
            checkpoints.restore(15, SMALL)
        flip(pair / "20" / "commit_success.txt", 0)
        with pytest.raises(InputError) as damaged:
            checkpoints.restore(20, SMALL)
        shutil.rmtree(pair / "10")
        with pytest.raises(InputError) as alone:
            checkpoints.restore(20, SMALL)
    flaw = f"checkpoint 20 is damaged (commit_success.txt is not what was written) in {pair}"
    assert str(missing.value) == f"no checkpoint 15 in {pair}; there is 10, 20"
    assert str(damaged.value) == f"{flaw}; there is 10"
    assert str(alone.value) == f"{flaw}; there is none"
    assert {entry[0] for entry in listing(pair)} <= {entry[0] for entry in before}


@pytest.mark.parametrize("step", [15, 20])
def test_a_step_not_after_the_newest_is_refused(pair, step):
    with (
        Checkpoints(pair) as checkpoints,
        pytest.raises(InputError, match=f"step {step} cannot be saved: {pair} has checkpoint 20"),
    ):
        checkpoints.save(step, small(step), {}, metric=None)


def test_what_cannot_be_saved_is_refused(tmp_path):
    no_json: Any = {"w": jnp.ones(1)}
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(TypeError, match="variables/lr is a float and only arrays can be saved"):
            checkpoints.save(1, {"variables": {"lr": 0.1}}, {}, metric=None)
        with pytest.raises(TypeError, match="not JSON serializable"):
            checkpoints.save(1, small(1), no_json, metric=None)
    assert list(tmp_path.iterdir()) == []


def test_saving_read_only_is_refused(pair):
    with (
        Checkpoints(pair, writable=False) as checkpoints,
        pytest.raises(ValueError, match="were opened read only"),
    ):
        checkpoints.save(30, small(30), {}, metric=None)
