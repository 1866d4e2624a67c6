"""What is recognised in a source, and what is refused."""

import json
import sys
import types

import numpy as np
import pytest

from resnet_jax import BottleneckBlock, InputError, ResidualBlock, create_model
from resnet_jax.interop import (
    DialectName,
    Preprocessing,
    load_pretrained,
    of_variables,
    read_weights,
    save_pretrained,
)
from resnet_jax.interop.naming import foreign_name, to_foreign
from resnet_jax.interop.safetensors_file import read_safetensors, write_safetensors
from tests.interop.small import random_arrays, random_variables, small_network


def write(
    path, network, dialect: DialectName = "torchvision", *, channels=3, change=lambda arrays: arrays
):
    """Writes a network with no more than its library would."""
    arrays = {
        foreign_name(dialect, name): to_foreign(dialect, array)
        for name, array in random_arrays(network, channels).items()
    }
    write_safetensors(path, change(arrays), {"format": "pt"})
    return path


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


def test_options_come_before_what_is_recognised(tmp_path):
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
        (without("conv1.weight"), "it is no residual network: it has none of conv1.weight, resnet"),
        (without(FIRST), "it is no residual network: it has no layer1.0.conv1.weight$"),
        (without("fc.weight"), "fc.weight is not there, and has to have 2 dimensions"),
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
def test_what_does_not_fit_is_refused_with_the_first_differences(tmp_path, change, message):
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
        ("{", "metadata resnet_jax is no JSON"),
        ("[" * 10**5, "metadata resnet_jax is no JSON"),
        ("[]", "metadata resnet_jax is no JSON object"),
        ('{"network": 3}', "metadata resnet_jax says of its network 3"),
        ('{"network": {"width": 8}}', "says of its network {'width': 8}"),
        ({"pool_padding": [10**9, 0]}, r"says of its network {.*1000000000"),
        ({"stride_on": "5x5"}, "stride_on is '5x5'; it must be one of '1x1', '3x3'"),
        ({"shortcut": []}, r"shortcut is \[\]; it must be one of"),
        ({"bn_epsilon": "much"}, "says of its network"),
        ({"image_size": 10**9}, "the metadata describes no preprocessing that is known here"),
        ({"mean": [1e400]}, "the metadata describes no preprocessing"),
        ({"std": [0.0, 0.0, 0.0]}, "the metadata describes no preprocessing"),
    ],
)
def test_metadata_that_are_no_network_are_refused(tmp_path, entry, message):
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


def folder(path, network, dialect, **files):
    path.mkdir()
    write(path / "model.safetensors", network, dialect)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / f"{name}.json").write_text(text)
    return path


TIMM = {
    "architecture": "resnet50",
    "pretrained_cfg": {
        "input_size": [3, 160, 160],
        "crop_pct": 0.95,
        "interpolation": "bicubic",
        "mean": [0.1, 0.2, 0.3],
        "std": [1, 1, 1],
    },
}
CONVNEXT = {
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "size": 224,
    "crop_pct": 0.875,
    "resample": 3,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [1, 1, 1],
}
CROPPED = {"size": {"shortest_edge": 232}, "crop_size": {"height": 224, "width": 224}}
CROPPED |= {"resample": 2, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}
NUMBERS = ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("dialect", "files", "expected"),
    [
        ("timm", {"config": TIMM}, Preprocessing(160, 168, "bicubic", *NUMBERS)),
        ("timm", {}, Preprocessing(224, 256, "bilinear")),
        (
            "huggingface",
            {"preprocessor_config": CONVNEXT},
            Preprocessing(224, 256, "bicubic", *NUMBERS),
        ),
        (
            "huggingface",
            {"preprocessor_config": CROPPED},
            Preprocessing(224, 232, "bilinear", *NUMBERS),
        ),
        ("huggingface", {"config": {}}, Preprocessing(224, 256, "bilinear")),
    ],
)
def test_preprocessing_is_what_the_folder_says(tmp_path, dialect, files, expected):
    found = load_pretrained(folder(tmp_path / "a", small_network(), dialect, **files))
    assert found.preprocessing == expected
    statistics = found.preprocessing.statistics()
    assert statistics.mean.dtype == np.float32
    np.testing.assert_allclose(statistics.mean, 255 * np.array(expected.mean), rtol=1e-6)
    np.testing.assert_allclose(statistics.std, 255 * np.array(expected.std), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "resize"),
    [
        ("resnet50-0676ba61.pth", 256),
        ("resnet50-11ad3fa6.pth", 232),
        ("resnet101-cd907fc2.pth", 232),
        ("resnet152-f82ba261.safetensors", 232),
    ],
)
def test_torchvisions_second_weights_are_known_by_their_names(tmp_path, name, resize):
    path = write(tmp_path / name, small_network())
    assert load_pretrained(path).preprocessing == Preprocessing(resize=resize)


def test_torchvisions_names_and_preprocessing_are_those_that_it_gives():
    from tests.interop.references import DEPTHS, library

    models = library("torchvision").models
    for depth in DEPTHS:
        for weights in getattr(models, f"ResNet{depth}_Weights"):
            found = weights.transforms()
            second = weights.url.removesuffix(".pth").endswith(
                ("-11ad3fa6", "-cd907fc2", "-f82ba261")
            )
            expected = Preprocessing(resize=232 if second else 256)
            assert (found.crop_size, found.resize_size) == ([224], [expected.resize])
            assert found.interpolation.value == expected.interpolation
            assert (tuple(found.mean), tuple(found.std)) == (expected.mean, expected.std)


def test_hugging_faces_config_says_where_the_stride_is(tmp_path):
    for first, stride_on in ((True, "1x1"), (False, "3x3")):
        config = {"downsample_in_bottleneck": first}
        path = folder(tmp_path / stride_on, small_network(), "huggingface", config=config)
        assert load_pretrained(path).network == small_network(stride_on=stride_on)


@pytest.mark.parametrize(
    ("dialect", "files", "message"),
    [
        (
            "timm",
            {"config": {"architecture": "resnetblur50"}},
            "timm's resnetblur50 is another network than ResNet-18 to 152",
        ),
        (
            "timm",
            {"config": {**TIMM, "model_args": {"output_stride": 8}}},
            "timm's resnet50 was changed by {'output_stride': 8}, which is not known here",
        ),
        (
            "timm",
            {
                "config": {
                    **TIMM,
                    "pretrained_cfg": {"crop_mode": "squash", "input_size": [3, 8, 8]},
                }
            },
            "timm's pretrained_cfg describes no preprocessing .*crop_mode is 'squash'",
        ),
        (
            "timm",
            {"config": {**TIMM, "pretrained_cfg": {}}},
            r"no preprocessing that is known here \(it lacks 'input_size'\); give one explicitly",
        ),
        (
            "huggingface",
            {"config": {"downsample_in_first_stage": True}},
            "downsample_in_first_stage is True; here it is False",
        ),
        ("huggingface", {"config": {"hidden_act": "gelu"}}, "hidden_act is gelu; here it is relu"),
        ("huggingface", {"config": "{"}, "config.json is no JSON"),
        ("huggingface", {"config": "[]"}, "config.json holds no JSON object"),
        (
            "huggingface",
            {"preprocessor_config": CONVNEXT | {"size": 384}},
            "preprocessor_config.json describes no .*squashed to 384 pixels by ConvNext",
        ),
        (
            "huggingface",
            {"preprocessor_config": CONVNEXT | {"feature_extractor_type": "ViTFeatureExtractor"}},
            "squashed to 224 pixels by ViTFeatureExtractor",
        ),
        (
            "huggingface",
            {"preprocessor_config": CONVNEXT | {"resample": 0}},
            "describes no preprocessing",
        ),
        (
            "huggingface",
            {"preprocessor_config": CONVNEXT | {"do_normalize": False}},
            "do_normalize is False",
        ),
        (
            "huggingface",
            {"preprocessor_config": CROPPED | {"size": {"height": 224, "width": 256}}},
            "describes no preprocessing",
        ),
    ],
)
def test_a_folder_of_another_network_or_preprocessing_is_refused(tmp_path, dialect, files, message):
    path = folder(tmp_path / "a", small_network(), dialect, **files)
    with pytest.raises(InputError, match=message) as raised:
        load_pretrained(path)
    assert str(raised.value).startswith(str(path))
    if "preprocessing" in message or "squashed" in message:
        assert load_pretrained(path, preprocessing=Preprocessing()).network == small_network()


def test_what_is_not_there_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"there is no file or folder .*nothing.pth"):
        load_pretrained(tmp_path / "nothing.pth")
    with pytest.raises(InputError, match=r"has no model.safetensors or pytorch_model.bin"):
        load_pretrained(tmp_path)
    with pytest.raises(
        InputError, match="there is no dialect 'tochvision'; did you mean torchvisi"
    ):
        load_pretrained(
            write(tmp_path / "a.safetensors", small_network()),
            dialect="tochvision",  # pyrefly: ignore
        )
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"owner/name is not .* pip install 'resnet_jax\[hub\]'$"):
        load_pretrained("owner/name")


class Hub(types.ModuleType):
    """Has one repository, a folder here."""

    def __init__(self, root, weights):
        super().__init__("huggingface_hub")
        self.root, self.weights, self.asked = root, weights, []

    def snapshot_download(self, repository, *, revision, allow_patterns):
        self.asked.append((repository, revision, allow_patterns[-1]))
        if repository != "owner/name":
            raise OSError("404 Client Error\nRepository Not Found")
        self.root.mkdir(exist_ok=True)
        if allow_patterns[-1] == self.weights:
            write(self.root / self.weights, small_network())
        return str(self.root)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_repository_of_the_hub_is_a_folder(tmp_path, monkeypatch, weights):
    hub = Hub(tmp_path / "a", weights)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    found = load_pretrained("owner/name@v2")
    assert (found.network, found.source) == (small_network(), "owner/name@v2")
    assert hub.asked[0] == ("owner/name", "v2", "model.safetensors")
    assert len(hub.asked) == (1 if weights == "model.safetensors" else 2)
    with pytest.raises(InputError, match=r"and the hub does not give it: 404 Client Error$"):
        load_pretrained("owner/other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shortcut": "A"}, "shortcut 'B' for 'A'"),
        ({"stride_on": "1x1"}, "stride_on '3x3' for '1x1'"),
        ({"pool_padding": (0, 1)}, r"pool_padding \(1, 1\) for \(0, 1\)"),
        ({"bn_epsilon": 1e-3}, "bn_epsilon 1e-05 for 0.001"),
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


def test_where_the_stride_is_does_not_matter_where_it_can_be_said_or_is_one(tmp_path):
    first = small_network(stride_on="1x1")
    save_pretrained(first, random_variables(first), tmp_path / "a", to="huggingface")
    assert load_pretrained(tmp_path / "a").network == first
    basic = small_network(ResidualBlock, stride_on="1x1")
    save_pretrained(basic, random_variables(basic), tmp_path / "b.safetensors", to="timm")


def test_other_networks_and_variables_are_refused():
    class Other:
        pass

    network = small_network()
    variables = random_variables(network)
    with pytest.raises(InputError, match="x is a Other; only a ResNet has other names"):
        of_variables(Other(), variables, Preprocessing(), "x")  # pyrefly: ignore
    del variables["params"]["head"]["bias"]
    with pytest.raises(InputError, match=r"x: it does not fit .* missing: params/head/bias \(5,\)"):
        of_variables(network, variables, Preprocessing(), "x")
    with pytest.raises(InputError, match="missing: params/head/bias"):
        of_variables(network, {"params": {}, "batch_stats": {}}, Preprocessing(), "x")
    wrong = random_variables(create_model("resnet18", width=4, num_classes=5))
    with pytest.raises(InputError, match="it does not fit"):
        of_variables(network, wrong, Preprocessing(), "x")


def test_an_object_store_is_as_good_as_a_disk(object_store):
    network = small_network()
    place = object_store / "a"
    save_pretrained(network, random_variables(network), place, to="huggingface")
    assert load_pretrained(place).network == network
