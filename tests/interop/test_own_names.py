"""Every network, in our own names: it comes back as it was, and a file that lies is refused."""

import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
from flax import linen as nn

from resnet_jax import InputError, create_model, list_models
from resnet_jax.interop import families, load_pretrained, read_weights, save_pretrained
from resnet_jax.interop.families import network_classes
from resnet_jax.interop.formats.safetensors import read_safetensors, write_safetensors
from resnet_jax.models import registry
from resnet_jax.models.variant import Variant
from tests.interop.small import random_variables, small_network

HIDDEN = {"hidden_units": 3, "num_classes": 5}
SMALL = {
    "lenet5": ({}, 1),
    "lenet5_1998": ({}, 1),
    "alexnet": ({"filters": (4, 6, 8, 8, 6), **HIDDEN, "dropout_rate": 0.25}, 3),
    "alexnet_torchvision": ({"filters": (4, 6, 8, 8, 6), **HIDDEN}, 1),
    "zfnet": ({"filters": (4, 6, 8, 8, 6), **HIDDEN}, 3),
    "vgg11": ({"width": 2, **HIDDEN}, 3),
    "vgg16_bn": ({"width": 2, **HIDDEN, "bn_epsilon": 1e-3}, 2),
    "googlenet": ({"width": 8, "auxiliary_units": 6, "num_classes": 5}, 3),
    "googlenet_bn": ({"width": 8, "num_classes": 5, "auxiliary_heads": False}, 4),
    "bn_inception": ({"width": 8, "num_classes": 5}, 3),
    "prelu_net_a": (
        {"filters": (4, 4, 4), "stem_filters": 4, "stage_sizes": (1, 2, 1), **HIDDEN},
        3,
    ),
    "cifar_resnet8": ({"width": 2, "num_classes": 5}, 3),
}


# Those that are left out take seconds, and come back in tests/pins/test_interop.py.
@pytest.mark.parametrize("name", [n for n in SMALL if n not in ("googlenet", "bn_inception")])
def test_a_network_comes_back(tmp_path, name):
    options, channels = SMALL[name]
    network = create_model(name, **options)
    variables = random_variables(network, channels)
    path = tmp_path / "a.safetensors"
    save_pretrained(network, variables, path, to="resnet_jax")
    found = load_pretrained(path)
    assert found.network == network
    assert found.in_channels == read_weights(path).channels == channels
    np.testing.assert_equal(found.variables, variables)


def test_there_is_one_of_every_class():
    made = {type(create_model(name, **options)).__name__ for name, (options, _) in SMALL.items()}
    assert (
        made
        == network_classes().keys()
        == {type(create_model(name)).__name__ for name in list_models()}
    )


class Tiny(nn.Module):
    """A network that is in the registry and nowhere else."""

    num_classes: int = 2
    filters: Sequence[int] = (3, 4)
    pooled: bool = True
    slope: float = 0.1
    activation: Literal["relu", "tanh"] | None = None

    @nn.compact
    def __call__(self, x, *, train):
        for n in self.filters:
            x = nn.Conv(n, (3, 3))(x)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_a_network_of_the_registry_needs_no_code_here(tmp_path, monkeypatch, channels):
    monkeypatch.setitem(registry._VARIANTS, "tiny", Variant(Tiny, image_shape=(8, 8, 3)))
    for cached in (families.network_classes, families.usual_side):
        cached.cache_clear()
    network = Tiny(5, (6, 7), False, 0.2, "tanh")
    save_pretrained(network, random_variables(network, channels), tmp_path / "a", to="resnet_jax")
    found = load_pretrained(tmp_path / "a")
    assert (found.network, found.in_channels) == (network, channels)
    assert found.preprocessing.image_size == 8
    monkeypatch.undo()
    families.network_classes.cache_clear()
    with pytest.raises(InputError, match="there is no network 'Tiny'; known are"):
        load_pretrained(tmp_path / "a")


@pytest.mark.parametrize(("name", "classes"), [("googlenet", 7), ("lenet5", 3)])
def test_a_new_head_is_new_in_auxiliary_classifiers_too(tmp_path, name, classes):
    options, channels = SMALL[name]
    network = create_model(name, **options)
    path = tmp_path / "a.safetensors"
    save_pretrained(network, random_variables(network, channels), path, to="resnet_jax")
    found = load_pretrained(path, num_classes=classes)
    heads = [found.variables["params"]["head"]]
    heads += [head["head"] for n, head in found.variables["params"].items() if "auxiliary" in n]
    assert len(heads) == (3 if name == "googlenet" else 1)
    for head in heads:
        assert head["kernel"].shape[1] == classes
        assert not head["kernel"].any()


@pytest.mark.parametrize(
    ("dialect", "name", "message"),
    [
        (
            "torchvision",
            "zfnet",
            "torchvision has no network of the kind ZFNet; names of such are in: resnet_jax",
        ),
        (
            "timm",
            "vgg11",
            "timm has no network of the kind VGG; names of such are in: torchvision, ",
        ),
        ("torchvision", "alexnet", "it has form 'torchvision' for 'paper'; force it"),
        ("torchvision", "googlenet", "it has form 'torchvision' for 'paper', bn_epsilon 0.001 for"),
        ("torchvision", "vgg16_bn", "it has bn_epsilon 1e-05 for 0.001; force it"),
    ],
)
def test_networks_that_a_library_does_not_have_are_not_written(tmp_path, dialect, name, message):
    network = create_model(name, **SMALL[name][0])
    with pytest.raises(InputError, match=message):
        save_pretrained(network, random_variables(network), tmp_path / "a", to=dialect)
    assert not list(tmp_path.iterdir())


def lying(folder, name, **said):
    """Returns a file whose metadata say something else of its network."""
    options, channels = SMALL[name]
    network, path = create_model(name, **options), folder / "a.safetensors"
    save_pretrained(network, random_variables(network, channels), path, to="resnet_jax")
    arrays, metadata = read_safetensors(path)
    entry = json.loads(metadata["resnet_jax"])
    entry["network"] |= said
    write_safetensors(path, arrays, {"resnet_jax": json.dumps(entry)})
    return path


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("lenet5", {"module": "LeNet4"}, "there is no network 'LeNet4'; did you mean LeNet5"),
        ("lenet5", {"module": 5}, "says of its network {"),
        ("lenet5", {"module": "ZFNet"}, "says of its network {"),
        ("lenet5", {"activation": "evil"}, "activation is 'evil'; it must be one of"),
        ("lenet5", {"num_classes": 2**62}, "it does not fit the network"),
        ("lenet5", {"num_classes": [[5]]}, "says of its network {"),
        ("lenet5", {"more": 1}, "says of its network {"),
        ("zfnet", {"filters": [2**20] * 5}, r"it does not fit the network that it looks most like"),
        ("zfnet", {"filters": [4] * 4}, "filters is .*; it must have 5"),
        ("prelu_net_a", {"stage_sizes": [10**6] * 3}, "and has fewer arrays"),
        ("prelu_net_a", {"stage_sizes": 3}, "its network cannot be made"),
        ("vgg16_bn", {"bn_epsilon": "much"}, "its network cannot be made"),
        ("vgg11", {"dropout_rate": 1.5}, r"dropout_rate is 1.5; it must be in \[0, 1\)"),
    ],
)
def test_metadata_that_lie_are_refused(tmp_path, name, said, message):
    path = lying(tmp_path, name, **said)
    with pytest.raises(InputError, match=message) as raised:
        load_pretrained(path)
    assert str(raised.value).startswith(f"{path} cannot be taken: ")


def test_a_file_without_metadata_is_taken_for_a_residual_network(tmp_path):
    path = lying(tmp_path, "zfnet")
    write_safetensors(path, read_safetensors(path)[0], {})
    with pytest.raises(InputError, match="most like; params/stage1/block1/conv1/kernel is missing"):
        load_pretrained(path)
    network = small_network()
    save_pretrained(network, random_variables(network), tmp_path / "b", to="resnet_jax")
    arrays, _ = read_safetensors(tmp_path / "b" / "model.safetensors")
    write_safetensors(path, arrays, {})
    assert load_pretrained(path).network == network


def test_a_file_does_not_say_in_which_form_layers_are_compiled(tmp_path):
    network = create_model("cifar_resnet8", width=2, lowering="fast")
    save_pretrained(network, random_variables(network), tmp_path / "a.safetensors", to="resnet_jax")
    assert load_pretrained(tmp_path / "a.safetensors").network.lowering == "plain"
