"""The command `scaling`."""

import pathlib

import pytest

from tests.commands import run_command
from tests.tiny import tiny_flags

IMAGENET = f"--config={pathlib.Path(__file__).parents[2] / 'configs/imagenet.py'}:resnet50"


@pytest.fixture
def scaling(capsys):
    return lambda *arguments: run_command(capsys, "scaling", *arguments)


def test_a_pod_of_the_papers_network(scaling):
    ended = scaling(IMAGENET, "--devices=8,512", "--kind=v5e", "--batch=32", "--reached=50")
    assert ended.status == 0, ended.err
    head, eight, many, _, *text = ended.out.splitlines()
    assert head.split()[:3] == ["devices", "batch", "images/s"]
    assert eight.split()[:2] == ["8", "256"]
    assert many.split()[:2] == ["512", "16,384"]
    assert text[0].startswith("a device: training, batch 32, float32, ")
    assert "gradients 102,228,128, statistics 212,480, metrics 8" in ended.out
    # Pixels, the label, a flip and three coefficients of colour.
    assert f"{(3 * 224 * 224 + 4 + 1 + 12) / 1e3:.1f} kB sent" in text[-1]


def test_images_in_memory_are_neither_read_nor_decoded(scaling):
    ended = scaling(*tiny_flags(), "--devices=1")
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[1].split()[-3:-1] == ["0", "0.00"]
    assert "0.00 ms of a core, 0.0 kB read, 0.2 kB sent" in ended.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is not given"),
        ([IMAGENET, "--kind=h10"], "there is no kind of device 'h10'; did you mean h100"),
        ([IMAGENET, "--kind=v9"], "there is no kind of device 'v9'; known are a100, h100, h200"),
        ([IMAGENET, "--devices=8,0"], "--devices is '8,0'; it must be whole numbers above 0"),
        ([IMAGENET, "--devices="], "--devices is ''; it must be whole numbers above 0"),
        ([IMAGENET, "--batch=0"], "flag --batch=0"),
        ([IMAGENET, "--batch=48"], "model.bn_group_size is 32, which spans devices of 48 images"),
        ([IMAGENET, "--kind=a100", "--devices=16"], "there are no figures for the network between"),
        ([IMAGENET, "--config.model.name=resnet51"], "there is no model 'resnet51'; did you mean"),
        ([IMAGENET, "--config.dtype=float16"], "there is no dtype 'float16'; did you mean"),
    ],
)
def test_wrong_input_gets_one_sentence(scaling, arguments, message):
    ended = scaling(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
