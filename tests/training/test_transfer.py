import jax
import numpy as np
import pytest
from flax import traverse_util

from resnet_jax.errors import InputError
from resnet_jax.evaluation import restore
from resnet_jax.training import train
from tests.tiny import SELDOM, tiny_config


def flat(state):
    return {
        **traverse_util.flatten_dict(jax.device_get(state.variables), sep="/"),
        **{
            f"opt/{jax.tree_util.keystr(path)}": np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        },
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("source") / "run"
    train(tiny_config(**SELDOM, total_steps=3, **{"model.stage_sizes": (1, 1)}), workdir)
    return workdir


def tuned(source, **changes):
    usual = {
        **SELDOM,
        "total_steps": 4,
        "seed": 5,
        "model.stage_sizes": (1, 1),
        "init.source": str(source),
    }
    return tiny_config(**{**usual, **changes})


def test_starts_from_the_source_with_a_new_head(source, tmp_path):
    config = tuned(source, **{"schedule.learning_rate": 0.0})
    end = flat(train(config, tmp_path / "run"))
    there = traverse_util.flatten_dict(restore(source).variables, sep="/")
    for name, array in there.items():
        if name.startswith("params/"):
            same = np.array_equal(end[name], array)
            assert same != ("/head/" in name), name


def test_frozen_modules_stay_as_they_were_and_the_rest_learns(source, tmp_path):
    config = tuned(source, **{"init.freeze": ("stem", "stage1/block1"), "model.shortcut": "B"})
    with pytest.raises(InputError, match="shortcut 'A' and this one has 'B'"):
        train(config, tmp_path / "run")
    config = tuned(source, **{"init.freeze": ("stem", "stage1/block1")})
    end = flat(train(config, tmp_path / "run"))
    there = traverse_util.flatten_dict(restore(source).variables, sep="/")
    for name, array in there.items():
        frozen = "/stem/" in name or "/stage1/" in name
        assert np.array_equal(end[name], array) == frozen, name


@pytest.mark.slow
def test_an_interrupted_fine_tuning_goes_on_bit_for_bit_without_its_source(source, tmp_path):
    changes = {"init.freeze": ("stem",)}
    whole = flat(train(tuned(source, **changes), tmp_path / "whole"))
    train(tuned(source, **changes, total_steps=2), tmp_path / "parts")
    hidden = source.rename(source.with_name("hidden"))
    try:
        parts = flat(train(tuned(source, **changes), tmp_path / "parts"))
    finally:
        hidden.rename(source)
    assert whole.keys() == parts.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.width": 8}, r"is of shape \(4,\) in it, and of shape \(8,\) here"),
        ({"model.stage_sizes": (1, 2)}, r"stage2/block2/.* is absent in it"),
        ({"model.stage_sizes": (1,)}, r"stage2/block1/.* is of shape .* in it, and absent here"),
        ({"init.new": ("heed",)}, r"no module of init.new 'heed'; did you mean head"),
        ({"init.freeze": ("stage9",)}, r"no module of init.freeze 'stage9'; did you mean stage"),
        ({"data.image_size": 12}, r"init.source has a mean of shape \(8, 8, 1\)"),
        ({"init.source": "/nowhere/at/all"}, "nowhere/at/all"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    source, tmp_path, changes, message
):
    with pytest.raises(InputError, match=message):
        train(tuned(source, **changes), tmp_path / "run")
    assert not list(tmp_path.iterdir())
