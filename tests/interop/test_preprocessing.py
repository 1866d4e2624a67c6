"""Preprocessing and forms of networks from the configs of other libraries."""

import json

import numpy as np
import pytest

from resnet_jax import InputError, create_model
from resnet_jax.interop import Preprocessing, load_pretrained, save_pretrained
from tests.interop.references import DEPTHS, library
from tests.interop.small import random_variables, small_network, write


def folder(path, network, dialect, **files):
    path.mkdir()
    write(path / "model.safetensors", network, dialect)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / f"{name}.json").write_text(text)
    return path


@pytest.mark.parametrize(
    ("network", "channels", "usual"),
    [
        (small_network(), 3, Preprocessing()),
        (small_network(), 1, Preprocessing(mean=(0.0,), std=(1.0,))),
        (small_network(), 4, Preprocessing(mean=(0.0,) * 4, std=(1.0,) * 4)),
        (create_model("lenet5"), 1, Preprocessing(32, 37, mean=(0.0,), std=(1.0,))),
    ],
)
def test_the_usual_preprocessing_fits_the_network(tmp_path, network, channels, usual):
    variables, path = random_variables(network, channels), tmp_path / "a.safetensors"
    save_pretrained(network, variables, path, to="resnet_jax")
    found = load_pretrained(path)
    assert found.preprocessing == usual
    assert found.statistics().mean.shape == (channels,)
    if network == small_network():
        write(path, network, channels=channels)
        assert load_pretrained(path).preprocessing == usual


def test_numbers_for_other_channels_are_refused_where_they_are_used(tmp_path):
    network, path = small_network(), tmp_path / "a.safetensors"
    write(path, network, channels=1)
    found = load_pretrained(path, preprocessing=Preprocessing())
    with pytest.raises(
        InputError, match="takes images of 1 channels, and what is subtracted has 3"
    ):
        found.statistics()


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
def test_preprocessing_is_read_from_the_folder(tmp_path, dialect, files, expected):
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


def test_torchvisions_names_and_preprocessing_are_its_own():
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


def test_hugging_faces_config_decides_on_the_stride(tmp_path):
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
            "timm's pretrained_cfg describes an unknown preprocessing; .*crop_mode is 'squash'",
        ),
        (
            "timm",
            {
                "config": {
                    **TIMM,
                    "pretrained_cfg": {
                        **{"interpolation": "lanczos", "input_size": [3, 8, 8]},
                        **{"mean": [0.5], "std": [0.5]},
                    },
                }
            },
            "timm's pretrained_cfg .*give one explicitly .interpolation is 'lanczos'",
        ),
        (
            "timm",
            {"config": {**TIMM, "pretrained_cfg": {}}},
            r"an unknown preprocessing; give one explicitly \(it lacks 'input_size'\)",
        ),
        (
            "huggingface",
            {"config": {"downsample_in_first_stage": True}},
            "downsample_in_first_stage is True; here it is False",
        ),
        ("huggingface", {"config": {"hidden_act": "gelu"}}, "hidden_act is gelu; here it is relu"),
        ("huggingface", {"config": "{"}, "config.json is not JSON"),
        ("huggingface", {"config": "[]"}, "config.json is not a JSON object"),
        (
            "huggingface",
            {"preprocessor_config": CONVNEXT | {"size": 384}},
            "preprocessor_config.json describes .*squashed to 384 pixels by ConvNext",
        ),
        (
            "huggingface",
            {"preprocessor_config": CONVNEXT | {"feature_extractor_type": "ViTFeatureExtractor"}},
            "squashed to 224 pixels by ViTFeatureExtractor",
        ),
        (
            "huggingface",
            {"preprocessor_config": CONVNEXT | {"resample": 0}},
            "describes an unknown preprocessing",
        ),
        (
            "huggingface",
            {"preprocessor_config": CONVNEXT | {"do_normalize": False}},
            "do_normalize is False",
        ),
        (
            "huggingface",
            {"preprocessor_config": CROPPED | {"size": {"height": 224, "width": 256}}},
            "describes an unknown preprocessing",
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
