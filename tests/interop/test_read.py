"""Recognition of the network in a file, and refusal of arrays that fit none."""

import json

import numpy as np
import pytest

from resnet_jax import BottleneckBlock, InputError, ResidualBlock
from resnet_jax.interop import Preprocessing, load_pretrained, read_weights, save_pretrained
from resnet_jax.interop.formats.safetensors import read_safetensors, write_safetensors
from tests.interop.small import random_variables, small_network, write


@pytest.mark.parametrize("dialect", ["torchvision", "timm", "huggingface", "resnet_jax"])
@pytest.mark.parametrize(
    "fields",
    [
        {"block": ResidualBlock, "stage_sizes": (2, 1, 3, 1)},
        {"block": BottleneckBlock, "stage_sizes": (1, 11), "width": 6, "num_classes": 1},
    ],
)
def test_the_form_is_recognised(tmp_path, dialect, fields):
    network = small_network(**fields)
    path = write(tmp_path / "a.safetensors", network, dialect, channels=1)
    found = load_pretrained(path)
    assert found.network == network
    assert found.source == str(path)
    assert found.variables["params"]["stem"]["conv"]["kernel"].shape[2] == 1
    assert load_pretrained(path, dialect=dialect).network == network


def test_options_override_what_is_recognised(tmp_path):
    path = write(tmp_path / "a.safetensors", small_network())
    given = {"stride_on": "1x1", "pool_padding": (0, 1), "bn_group_size": 4}
    preprocessing = Preprocessing(64, 72)
    found = load_pretrained(path, preprocessing=preprocessing, **given)
    assert found.network == small_network(**given)
    assert found.preprocessing == preprocessing


def test_a_new_head_starts_at_zero_and_nothing_else_changes(tmp_path):
    path = write(tmp_path / "a.safetensors", small_network())
    found, old = load_pretrained(path, num_classes=9), load_pretrained(path)
    assert found.network == small_network(num_classes=9)
    head = found.variables["params"].pop("head")
    assert (head["kernel"].shape, head["bias"].shape) == ((32, 9), (9,))
    assert not head["kernel"].any()
    assert not head["bias"].any()
    del old.variables["params"]["head"]
    np.testing.assert_equal(found.variables, old.variables)
    with pytest.raises(InputError, match="num_classes is 0; it must be at least 1"):
        load_pretrained(path, num_classes=0)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_variables_are_float32_whatever_is_stored(tmp_path, dtype):
    def change(arrays):
        return {n: a.astype(dtype) if a.dtype == np.float32 else a for n, a in arrays.items()}

    path = write(tmp_path / "a.safetensors", small_network(), change=change)
    kernel = load_pretrained(path).variables["params"]["stem"]["conv"]["kernel"]
    assert kernel.dtype == np.float32
    assert read_weights(path).arrays["params/stem/conv/kernel"].dtype == dtype
    np.testing.assert_array_equal(kernel, read_weights(path).arrays["params/stem/conv/kernel"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_the_prefixes_of_wrappers_are_ignored(tmp_path, prefix):
    def change(arrays):
        return {prefix + name: array for name, array in arrays.items()}

    path = write(tmp_path / "a.safetensors", small_network(), change=change)
    assert load_pretrained(path).network == small_network()


def without(*names):
    return lambda arrays: {n: a for n, a in arrays.items() if n not in names}


def plus(**new):
    return lambda arrays: {**arrays, **new}


FIRST = "layer1.0.conv1.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("bn1.bias"),
            r"it does not fit the network that it looks most like; missing: bn1.bias \(4,\)$",
        ),
        (
            lambda arrays: {n: a for n, a in arrays.items() if "running_var" not in n},
            r"missing: layer1.0.bn1.running_var \(4,\), .* \(4,\), .* \(16,\) and 9 more$",
        ),
        (
            plus(more=np.ones(3, np.float32)),
            r"most like; unexpected: more \(3,\)$",
        ),
        (
            lambda arrays: {**arrays, FIRST: arrays[FIRST][:, :2]},
            r"of other shapes: layer1.0.conv1.weight is \(4, 2, 1, 1\) where \(4, 4, 1, 1\) fits$",
        ),
        (
            lambda arrays: {**without("bn1.bias")(arrays), "bn1.shift": np.ones(4, np.float32)},
            r"missing: bn1.bias \(4,\); unexpected: bn1.shift \(4,\)$",
        ),
        (
            without("conv1.weight"),
            "it is not a network that is known here: it has none of conv1.weight, resnet",
        ),
        (without(FIRST), "most like; layer1.0.conv1.weight is missing, and has to"),
        (without("fc.weight"), "most like; fc.weight is missing, and has to have 2 dimensions"),
        (plus(**{"conv1.weight": np.ones(3, np.float32)}), r"conv1.weight is \(3,\), and has to"),
        (
            plus(**{"bn1.bias": np.ones(4, np.int32)}),
            "params/stem/bn/bias is of type int32, and has to be floating",
        ),
        (
            plus(**{"bn1.num_batches_tracked": np.array(1.5)}),
            "batches_tracked/stem/bn/count is of type float64, and has to be integer",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_the_first_differences(tmp_path, change, message):
    path = write(tmp_path / "a.safetensors", small_network(), change=change)
    with pytest.raises(InputError, match=message) as raised:
        load_pretrained(path)
    assert str(raised.value).startswith(f"{path} cannot be taken: ")


def test_a_tower_of_stages_is_not_climbed(tmp_path):
    """Doubling the width at each of thousands of stages would be a number of its own."""
    new = {f"layer{i}.0.conv1.weight": np.ones((1, 1, 1, 1), np.float32) for i in range(1, 3000)}
    path = write(tmp_path / "a.safetensors", small_network(), change=plus(**new))
    with pytest.raises(InputError, match=r"missing: layer10.0.bn1.bias"):
        load_pretrained(path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{", "metadata resnet_jax is not JSON"),
        ("[" * 10**5, "metadata resnet_jax is not JSON"),
        ("[]", "metadata resnet_jax is not a JSON object"),
        ('{"network": 3}', "metadata resnet_jax says of its network 3"),
        ('{"network": {"width": 8}}', "says of its network {'width': 8}"),
        ({"pool_padding": [10**9, 0]}, r"pool_padding is \(1000000000, 0\); it must be two of"),
        ({"stride_on": "5x5"}, "stride_on is '5x5'; it must be one of '1x1', '3x3'"),
        ({"output_stride": 3}, "output_stride is 3; it must be one of 4, 8, None"),
        ({"shortcut": []}, r"shortcut is \(\); it must be one of"),
        ({"shortcut": {}}, r"says of its network .*'shortcut': {}"),
        ({"bn_epsilon": "much"}, "its network cannot be made"),
        ({"image_size": 10**9}, "the metadata describe an unknown preprocessing"),
        ({"resize": 10**9}, "224 of 1000000000 pixels"),
        ({"mean": [1e400]}, "the metadata describe an unknown preprocessing"),
        ({"std": [0.0, 0.0, 0.0]}, "the metadata describe an unknown preprocessing"),
    ],
)
def test_metadata_of_other_values_are_refused(tmp_path, entry, message):
    path = tmp_path / "a.safetensors"
    save_pretrained(small_network(), random_variables(small_network()), path, to="torchvision")
    arrays, metadata = read_safetensors(path)
    if isinstance(entry, dict):
        written = json.loads(metadata["resnet_jax"])
        ((key, value),) = entry.items()
        written["network" if key in written["network"] else "preprocessing"][key] = value
        entry = json.dumps(written)
    write_safetensors(path, arrays, {"resnet_jax": entry})
    with pytest.raises(InputError, match=message):
        load_pretrained(path)
