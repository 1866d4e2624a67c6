"""The runs of an experiment: their configs, and which earlier runs count."""

import math

import pytest
from etils import epath

from resnet_jax.config import load_config, update
from resnet_jax.errors import InputError
from resnet_jax.reproduce import Plan
from resnet_jax.reproduce.runs import _same_recipe, shorten


def plan(tmp_path, **options):
    return Plan(epath.Path(tmp_path), **options)


def test_a_fraction_scales_the_schedule_too(tmp_path):
    config = plan(tmp_path, fraction=0.125).config("cifar10.py:resnet110", seed=3)
    assert config.total_steps == 8000
    assert config.schedule.boundaries == (4000, 6000)
    assert config.schedule.warmup_steps == 50
    assert config.seed == 3
    assert config.eval_every == 400


def test_a_plateau_is_looked_for_as_much_more_often():
    config = load_config("imagenet.py:resnet34_A")
    every, total = config.eval_every, config.total_steps
    shorten(config, 0.01)
    assert config.total_steps == total // 100
    assert config.eval_every == round(every / 100)
    assert config.schedule.patience == 5


def test_the_whole_length_is_the_recipe(tmp_path):
    assert plan(tmp_path).config("cifar10.py:plain20") == load_config("cifar10.py:plain20")


def test_data_are_a_folder_of_images_or_of_tfds(tmp_path):
    (tmp_path / "images" / "train").mkdir(parents=True)
    config = plan(tmp_path, data=str(tmp_path / "images")).config("cifar10.py:plain20")
    assert (config.data.source, config.data.path) == ("folder", str(tmp_path / "images"))
    config = plan(tmp_path, data=str(tmp_path)).config("cifar10.py:plain20")
    assert (config.data.source, config.data.name) == ("tfds", "cifar10")
    config = plan(tmp_path, data=str(tmp_path)).config("degradation.py:plain8")
    assert config.data.source == "digits"


def test_training_images_are_held_out_of_cifar_alone(tmp_path):
    config = plan(tmp_path, held_out=True).config("cifar10.py:plain20")
    assert config.data.train_split == "train[:45000]"
    assert config.data.eval_split == "train[45000:]"
    with pytest.raises(InputError, match="held out of CIFAR-10 only"):
        plan(tmp_path, held_out=True).config("imagenet.py:resnet18")


def test_changed_values_win_and_the_rate_follows_the_batch(tmp_path):
    changes = {"batch_size": 64, "data": {"image_size": 64}}
    config = plan(tmp_path, changes=changes).config("imagenet.py:resnet18")
    assert config.data.image_size == 64
    assert config.schedule.learning_rate == pytest.approx(0.025)
    with pytest.raises(InputError, match=r"data\.image_size"):
        plan(tmp_path, changes={"data": {"imagesize": 1}}).config("imagenet.py:resnet18")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, "fraction is 0.0"),
        ({"fraction": 1.5}, "fraction is 1.5"),
        ({"seeds": 0}, "seeds are 0"),
        ({"fraction": math.nan}, "fraction is nan"),
        ({"changes": {"seed": 3}}, "give --seeds"),
        ({"runs": epath.Path("/nowhere")}, "not a folder"),
    ],
)
def test_wrong_plans_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        plan(tmp_path, **options)


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"total_steps": 1600, "schedule": {"boundaries": (801, 1200)}}, True),
        ({"data": {"source": "folder", "path": "elsewhere"}, "seed": 4}, True),
        ({"schedule": {"boundaries": (8000, 12000)}}, False),
        ({"schedule": {"boundaries": (32000,)}}, False),
        ({"batch_size": 64}, False),
        ({"data": {"train_split": "train[:45000]", "eval_split": "train[45000:]"}}, False),
        ({"data": {"eval_split": "train"}}, False),
        ({"data": {"name": "cifar100"}}, False),
        ({"data": {"source": "digits"}}, False),
        ({"data": {"image_size": 16}}, False),
    ],
)
def test_runs_of_a_recipe_differ_in_seed_and_length_alone(changes, counts):
    run, wanted = load_config("cifar10.py:plain20"), load_config("cifar10.py:plain20")
    update(run, changes)
    assert _same_recipe(run, wanted) == counts


def test_a_plateau_has_to_be_looked_for_in_proportion():
    run, wanted = load_config("imagenet.py:resnet18_A"), load_config("imagenet.py:resnet18_A")
    shorten(run, 0.01)
    assert _same_recipe(run, wanted)
    run.eval_every = wanted.eval_every
    assert not _same_recipe(run, wanted)


def test_degradation_normalises_over_the_batch_on_any_number_of_devices(tmp_path):
    for batch_size in (64, 32):
        config = plan(tmp_path, changes={"batch_size": batch_size}).config("degradation.py:plain8")
        assert config.model.bn_group_size == batch_size
