"""The command `show`."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.commands import run_command
from tests.data.pictures import write_folder
from tests.tiny import tiny_flags


@pytest.fixture
def show(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_command(capsys, "show", *arguments)


def drawn(path):
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


def test_draws_the_same_step_the_same_again(tmp_path, show):
    for name, step in [("new/a.png", 3), ("b.png", 3), ("c.png", 4)]:
        ended = show(
            *tiny_flags(),
            f"--step={step}",
            "--rows=2",
            "--columns=3",
            f"--out={name}",
        )
        assert ended.status == 0, ended.err
        assert ended.out == f"{name}\n"
        assert ended.err == ""
    files = [(tmp_path / name).read_bytes() for name in ("new/a.png", "b.png", "c.png")]
    assert files[0] == files[1] != files[2]
    assert drawn(tmp_path / "b.png").shape == (76 + 2 * 136 + 16, 32 + 2 * 348 + 28, 3)


def test_draws_folders_and_their_splits(tmp_path, show):
    write_folder(tmp_path / "data", {"train": {"a": 5, "b": 5}, "val": {"a": 2, "b": 2}})
    flags = tiny_flags(
        **{
            "data.source": "folder",
            "data.path": "data",
            "data.eval_split": "val",
            "data.in_memory": False,
            "data.augment": "inception_crop",
            "data.color": "pca",
            "data.image_size": 40,
        }
    )
    ended = show(*flags)
    assert ended.status == 0, ended.err
    train = drawn(tmp_path / "grid.png")
    ended = show(*flags, "--split=val")
    assert ended.status == 0, ended.err
    val = drawn(tmp_path / "grid.png")
    assert train.shape[1] > val.shape[1]  # two panels and one
    assert val.shape[0] == 76 + 1 * (120 + 24) + 16  # four images make one row


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is not given; it is a file of configs/"),
        ([*tiny_flags(), "--out=grid.jpg"], "--out is grid.jpg; it must be"),
        ([*tiny_flags(), "--out=/proc/grid.png"], "/proc/grid.png cannot be written: "),
        ([*tiny_flags(), "--step=-1"], "steps are counted from 0, not -1"),
        ([*tiny_flags(), f"--step={10**30}"], f"{10**30} is not integer <= {10**12}"),
        ([*tiny_flags(), "--split=tset"], "no split of digits 'tset'; did you mean test?"),
        ([*tiny_flags(), "--rows=0"], "0 is not a positive integer"),
        (tiny_flags(**{"data.color": "pca"}), "red, green and blue, and these have 1 channel"),
        (tiny_flags(**{"data.imagesize": "3"}), 'Did you mean "image_size"'),
    ],
)
def test_wrong_input_gets_one_sentence_and_leaves_nothing(tmp_path, show, arguments, message):
    ended = show(*arguments)
    assert ended.status == 2, ended.err
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert ended.out == ""
    assert not list(tmp_path.iterdir())
