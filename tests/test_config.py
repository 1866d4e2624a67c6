import json

import jax.numpy as jnp
import pytest

from resnet_jax import config as configs
from resnet_jax.errors import InputError
from resnet_jax.models import list_models, model_options
from tests.tiny import tiny_config


def test_a_config_survives_json():
    config = tiny_config(**{"model.bn_group_size": 8})
    assert configs.complete(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bach_size": 3}, "there is no key of the config 'bach_size'; did you mean batch_size"),
        ({"model": {"nmae": "a"}}, "there is no key of the config 'model.nmae'; .*model.name"),
        ({"model": 3}, "model is 3; it has keys of its own"),
        ({"batch_size": "many"}, "batch_size is 'many'; it must be of type int"),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        configs.complete(values)


@pytest.mark.parametrize("key", ["batch_size", "log_every", "data.image_size", "eval_batch_size"])
def test_numbers_that_cannot_be_are_refused(key):
    with pytest.raises(InputError, match=f"{key} is 0; it must be at least 1"):
        configs.check(tiny_config(**{key: 0}))


@pytest.mark.parametrize(("key", "value"), [("momentum", 1.0), ("weight_decay", -0.1)])
def test_shares_that_cannot_be_are_refused(key, value):
    message = rf"optimizer.{key} is {value}; it must be in \[0, 1\)"
    with pytest.raises(InputError, match=message):
        configs.check(tiny_config(**{f"optimizer.{key}": value}))


def test_keys_that_may_change_exist():
    config = tiny_config()
    known = {
        f"{key}.{inner}" if inner else key
        for key, value in config.to_dict().items()
        for inner in (value if isinstance(value, dict) else [None])
    }
    assert configs.may_change(config) - {"data.path"} <= known


def test_the_length_is_free_where_the_schedule_does_not_depend_on_it():
    assert "total_steps" in configs.may_change(tiny_config())
    assert "total_steps" not in configs.may_change(tiny_config(**{"schedule.name": "cosine"}))


def test_the_model_takes_its_options_from_the_config():
    config = tiny_config(**{"model.shortcut": "C", "model.bn_group_size": 4, "dtype": "bfloat16"})
    model = configs.build_model(config, 10, bn_axis_name="replicas")
    assert (model.shortcut, model.bn_group_size, model.width) == ("C", 4, 4)
    assert (model.dtype, model.bn_axis_name, model.num_classes) == (jnp.bfloat16, "replicas", 10)


def test_every_option_of_a_network_can_be_asked_for():
    elsewhere = {"dtype", "bn_axis_name"}
    classes = {"block"}  # which no flag can say
    for name in list_models():
        assert model_options(name) - elsewhere - classes <= set(configs.base_config().model)


def test_a_network_refuses_an_option_of_another():
    with pytest.raises(InputError, match="there is no option of cifar_resnet8 'hidden_units'"):
        configs.build_model(tiny_config(**{"model.hidden_units": 8}), 10)


def test_the_config_can_ask_for_other_classes_than_the_data_has():
    assert configs.build_model(tiny_config(**{"model.num_classes": 17}), 10).num_classes == 17


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"data.name": "cifar10"}, "digits"),
        ({"data.source": "folder", "data.path": "data/photos"}, "photos"),
        ({"data.source": "tfds", "data.name": "cifar10", "data.path": "data"}, "cifar10"),
    ],
)
def test_titles_say_what_the_data_are_called(values, name):
    assert configs.data_name(tiny_config(**values)) == name
