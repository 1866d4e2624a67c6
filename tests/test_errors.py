import pytest

from resnet_jax import InputError
from resnet_jax.errors import unknown

MODELS = ["resnet50", "resnet18", "plain18", "lenet5"]


def test_an_input_error_is_a_value_error_that_says_its_one_sentence():
    error = unknown("model", "resnet51", MODELS[:3])
    assert isinstance(error, InputError)
    assert isinstance(error, ValueError)
    assert str(error) == "there is no model 'resnet51'; did you mean resnet50 or resnet18?"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lenet", "there is no model 'lenet'; did you mean lenet5 or resnet50 or resnet18?"),
        ("plain-18", "there is no model 'plain-18'; did you mean plain18?"),
        ("vit", "there is no model 'vit'; known are lenet5, plain18, resnet18, resnet50"),
        ("", "there is no model ''; known are lenet5, plain18, resnet18, resnet50"),
        (None, "there is no model 'None'; known are lenet5, plain18, resnet18, resnet50"),
    ],
)
def test_near_names_come_first_and_all_names_where_none_is_near(name, message):
    assert str(unknown("model", name, MODELS)) == message


def test_names_may_come_from_anything_that_is_iterated_once():
    assert str(unknown("key", "a", iter("cb"))) == "there is no key 'a'; known are b, c"
