"""`python -m resnet_jax convert`."""

import numpy as np
import pytest

from resnet_jax import InputError
from resnet_jax.cli.convert import main
from resnet_jax.interop import load_pretrained, save_pretrained
from tests.commands import run_command
from tests.interop.small import random_variables, small_network


@pytest.fixture
def source(tmp_path):
    network = small_network()
    path = tmp_path / "source.safetensors"
    save_pretrained(network, random_variables(network), path, to="torchvision")
    return str(path)


def test_converts_between_any_two(tmp_path, source):
    pytest.importorskip("h5py")
    expected = load_pretrained(source)
    places = {
        "huggingface": "folder",
        "keras": "a.h5",
        "resnet_jax": "a.safetensors",
        "caffe": "a.caffemodel",
        "timm": "b.safetensors",
    }
    for dialect, place in places.items():
        destination = str(tmp_path / place)
        flags = ["--force"] if dialect in ("keras", "caffe") else []  # they have it as v1 alone
        main([source, destination, "--to", dialect, *flags])
        source = destination
        found = load_pretrained(destination)
        assert found.network == expected.network
        assert found.preprocessing == expected.preprocessing
        np.testing.assert_equal(found.variables, expected.variables)
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{source}"], "the following arguments are required: destination, --to"),
        (["{source}", "{new}", "--to", "darknet"], "invalid choice: 'darknet'"),
        (["{source}", "{new}", "--to", "timm"], "timm has no name for stages of"),
        (["{source}", "{source}", "--to", "timm"], "is there already; give another destination"),
        (["{source}", "{new}.pth", "--to", "timm"], "give NAME.safetensors, which PyTorch reads"),
        (["{source}", "{new}", "--to", "timm", "--best"], "is not a run, so it has no checkpoints"),
        (["{source}", "{new}", "--to", "timm", "--best", "--step", "3"], "each name a checkpoint"),
        (["{new}", "{new}", "--to", "timm"], "there is no file or folder"),
        (
            ["{source}", "{new}", "--to", "timm", "--from", "huggingface"],
            "it has none of resnet.embedder",
        ),
    ],
)
def test_wrong_input_is_refused_and_leaves_nothing(tmp_path, source, arguments, message):
    filled = [text.format(source=source, new=tmp_path / "new") for text in arguments]
    with pytest.raises(InputError, match=message):
        main(filled)
    assert [str(path) for path in tmp_path.iterdir()] == [source]


def test_the_program_ends_with_2_and_one_sentence(capsys):
    ended = run_command(capsys, "convert", "nowhere", "there", "--to", "timm")
    assert ended == (2, "", "resnet_jax convert: there is no file or folder nowhere\n")
