"""Refusal of networks that another library does not have."""

import numpy as np
import pytest

from resnet_jax import InputError, ResidualBlock, create_model, files
from resnet_jax.interop import (
    Preprocessing,
    load_pretrained,
    of_variables,
    save_pretrained,
    write_weights,
)
from resnet_jax.interop import write as write_module
from resnet_jax.interop.formats import caffe, safetensors
from tests.interop.small import random_variables, small_network


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shortcut": "A"}, "shortcut 'B' for 'A'"),
        ({"stride_on": "1x1"}, "stride_on '3x3' for '1x1'"),
        ({"pool_padding": (0, 1)}, r"pool_padding \(1, 1\) for \(0, 1\)"),
        ({"bn_epsilon": 1e-3}, "bn_epsilon 1e-05 for 0.001"),
        ({"output_stride": 4}, "output_stride None for 4"),
        ({"stem": "cifar"}, "stem 'imagenet' for 'cifar'"),
    ],
)
def test_networks_that_others_do_not_have_are_not_written(tmp_path, change, message):
    network = small_network(**change)
    path = tmp_path / "a.safetensors"
    with pytest.raises(
        InputError, match=f"the network is not written: .*, it has {message}; force it"
    ):
        save_pretrained(network, random_variables(network), path, to="torchvision")
    assert not path.exists()
    save_pretrained(network, random_variables(network), path, to="torchvision", force=True)
    save_pretrained(network, random_variables(network), tmp_path / "ours", to="resnet_jax")
    assert load_pretrained(tmp_path / "ours").network == network


def test_the_stride_does_not_matter_where_a_config_has_it_or_it_has_no_effect(tmp_path):
    first = small_network(stride_on="1x1")
    save_pretrained(first, random_variables(first), tmp_path / "a", to="huggingface")
    assert load_pretrained(tmp_path / "a").network == first
    basic = small_network(ResidualBlock, stride_on="1x1")
    save_pretrained(basic, random_variables(basic), tmp_path / "b.safetensors", to="timm")


@pytest.mark.parametrize("to", ["huggingface", "caffe"])
def test_half_a_folder_does_not_stay(tmp_path, monkeypatch, to):
    """A folder has several files, of which the last one can fail."""
    network = create_model("resnet50_v1_5", width=2, num_classes=3)
    image = np.zeros((8, 8, 3), np.float32)
    preprocessing = Preprocessing(8, 8, mean_image=image if to == "caffe" else None)
    written, write = [], files.write_atomically

    def fail_the_last(path, content):
        if "model" in path.name:
            raise OSError(28, "No space left on device")
        written.append(path.name)
        write(path, content)

    for module in (caffe, safetensors, write_module):
        monkeypatch.setattr(module, "write_atomically", fail_the_last)
    weights = of_variables(network, random_variables(network), preprocessing, "x")
    with pytest.raises(OSError, match="No space left"):
        write_weights(weights, tmp_path / "a", to, force=True)
    assert written
    assert not list(tmp_path.iterdir())


def test_other_networks_and_variables_are_refused():
    class Other:
        pass

    network = small_network()
    variables = random_variables(network)
    with pytest.raises(
        InputError, match="x: Other is not one of the networks here, which are ResNet, AlexNet"
    ):
        of_variables(Other(), variables, Preprocessing(), "x")  # pyrefly: ignore
    del variables["params"]["head"]["bias"]
    with pytest.raises(InputError, match=r"x: it does not fit .* missing: params/head/bias \(5,\)"):
        of_variables(network, variables, Preprocessing(), "x")
    with pytest.raises(InputError, match="missing: params/head/bias"):
        of_variables(network, {"params": {}, "batch_stats": {}}, Preprocessing(), "x")
    wrong = random_variables(create_model("resnet18", width=4, num_classes=5))
    with pytest.raises(InputError, match="it does not fit"):
        of_variables(network, wrong, Preprocessing(), "x")
