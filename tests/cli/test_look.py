"""The command `look`, on a finished run of one block and on weights."""

import pathlib
import re
import shlex
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from resnet_jax import ResidualBlock, ResNet, features, save_pretrained
from resnet_jax.analysis import plots
from resnet_jax.data import load_images, preprocess
from resnet_jax.evaluation import restore
from resnet_jax.interop import Preprocessing
from tests.commands import run_command
from tests.models.torch_reference import random_variables
from tests.quick import few_optimizations

RUN = ("--workdir=run",)
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def quick():
    with few_optimizations():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the run `run`, weights and a photo."""
    folder = tmp_path_factory.mktemp("look")
    shutil.copytree(ROOT / "tests/pins/run", folder / "run")
    model = ResNet((1,), block=ResidualBlock, width=4, num_classes=5)
    variables = random_variables(model, 32)
    weights, preprocessing = folder / "weights.safetensors", Preprocessing(32, 40)
    save_pretrained(model, variables, weights, to="resnet_jax", preprocessing=preprocessing)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    (folder / "text.png").write_text("this is not an image")
    return folder


@pytest.fixture
def look(capsys, monkeypatch, folder):
    monkeypatch.chdir(folder)
    return lambda *arguments: run_command(capsys, "look", *arguments)


def size(path):
    with Image.open(path) as image:
        return image.size


def documented():
    text = (ROOT / "docs/look.md").read_text()
    return re.findall(r"^python -m resnet_jax look (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("command", documented())
def test_the_documented_commands_draw(tmp_path, look, command):
    arguments = shlex.split(command.replace("runs/digits", "run"))
    out = tmp_path / arguments.pop()
    ended = look(*arguments, out)
    assert ended.status == 0, ended.err
    assert (ended.out, ended.err) == (f"{out}\n", "")
    width, height = size(out)
    assert width == 960
    assert 200 < height < 1000
    assert (ROOT / "docs/images" / out.name).stat().st_size <= 150_000


def test_weights_see_a_photo(tmp_path, look):
    out = tmp_path / "look.png"
    arguments = ("--what=gradcam", "--weights=weights.safetensors", "--image=photo.png")
    ended = look(*arguments, "--layer=stem/conv", "--class=3", f"--out={out}")
    assert ended.status == 0, ended.err
    assert size(out)[0] == 960


def test_the_strongest_images_of_the_split_are_drawn(tmp_path, look, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        plots, "plot_patches", lambda *arguments: drawn.append(arguments) or Figure()
    )
    out = f"--out={tmp_path / 'look.png'}"
    ended = look("--what=patches", "--unit=2", "--count=3", "--split=test[100:200]", *RUN, out)
    assert ended.status == 0, ended.err
    ((images, boxes, captions, title),) = drawn
    network = restore("run")
    pixels, labels = load_images("digits", "test[100:200]", 8).read(np.arange(100))
    inputs = preprocess({"image": jnp.asarray(pixels)}, network.statistics, padding=0)
    run = jax.jit(features, static_argnums=(0, 3))
    maps = np.asarray(run(network.model, network.variables, inputs, ("stage1",))["stage1"])[..., 2]
    best = np.argsort(-maps.max(axis=(1, 2)))[:3]
    np.testing.assert_array_equal(images, pixels[best])
    for number, box, caption in zip(best, boxes, captions, strict=True):
        row, column = np.unravel_index(maps[number].argmax(), (8, 8))
        assert caption == f"{labels[number]}: {maps[number].max():.3g}"
        # Three convolutions of 3x3.
        rows, columns = (max(row - 3, 0), min(row + 4, 8)), (max(column - 3, 0), min(column + 4, 8))
        assert box == (columns[0], rows[0], columns[1], rows[1])
    assert title.startswith(
        "run, step 30\nunit 2 of stage1: strongest activations in test[100:200]"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            RUN,
            "--what is not given; it is one of filters, activations, patches, gradcam, gradients",
        ),
        (["--what=filters"], "give --workdir, with --step or --best if wanted; or --weights"),
        ([*RUN, "--what=filter"], "filter"),
        ([*RUN, "--what=filters", "--weights=weights.safetensors"], "give --workdir"),
        ([*RUN, "--what=filters", "--out=look.jpg"], "--out is look.jpg; it must be"),
        ([*RUN, "--what=filters", "--out=/proc/look.png"], "/proc/look.png cannot be written: "),
        ([*RUN, "--what=filters", "--step=29"], "29"),
        ([*RUN, "--what=gradcam", "--layer=stage2"], "'stage2'; did you mean stage1"),
        ([*RUN, "--what=gradcam", "--layer=head"], "there is no layer with maps 'head'"),
        ([*RUN, "--what=gradcam", "--layer=stem,stage1"], "gradcam takes one --layer, and 2 are"),
        ([*RUN, "--what=gradcam", "--class=10"], "there is no class '10'"),
        ([*RUN, "--what=gradcam", "--image=no.png"], "--image cannot be read: "),
        ([*RUN, "--what=gradcam", "--image=text.png"], "image text.png cannot be decoded"),
        ([*RUN, "--what=gradcam", "--image=photo.png"], "photo.png has colours"),
        ([*RUN, "--what=activations", "--index=360"], "--index is 360, and test has 360 images"),
        ([*RUN, "--what=patches", "--unit=4"], "--unit is 4; stage1 has units 0 to 3"),
        ([*RUN, "--what=patches", "--split=tset"], "no split of digits 'tset'; did you mean test?"),
        ([*RUN, "--what=gradients", "--image=photo.png"], "gradients are of a --split"),
    ],
)
def test_wrong_input_gets_one_sentence_and_leaves_nothing(folder, look, arguments, message):
    before = sorted(folder.rglob("*"))
    ended = look(*arguments)
    assert ended.status == 2, ended.err
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert ended.out == ""
    assert sorted(folder.rglob("*")) == before
