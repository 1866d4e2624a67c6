"""The image is whole, and shows what there is to show."""

import math
import sys

import numpy as np
import pytest
from PIL import Image

from resnet_jax.training.curves import draw_curves


def rows(split, points):
    return [{"step": step, "split": split, "loss": 1.0, "top1_error": y} for step, y in points]


def draw(tmp_path, log):
    path = tmp_path / "report" / "curves.png"
    draw_curves(log, path, title="cifar_resnet20 on digits")
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def ink(image):
    """Returns how many pixels are coloured: curves are, axes, grid and text are not."""
    return int(np.count_nonzero(image.max(-1) - image.min(-1) > 40))


def decay(last, count):
    return [(last * i // count, 90 * math.exp(-5 * i / count) + 3) for i in range(1, count + 1)]


def test_the_test_error_is_bolder_than_the_training_error(tmp_path):
    train = ink(draw(tmp_path, rows("train", decay(64_000, 100))))
    test = ink(draw(tmp_path, rows("test", decay(64_000, 100))))
    assert 0 < 1.5 * train < test


@pytest.mark.parametrize(
    "log",
    [
        rows("test", [(5, 50.0)]),
        rows("test", [(5, 0.0)]),
        rows("train", decay(400, 20)) + rows("test", [(400, 3.5)]),
        rows("train", [(1, 90.0), (2, math.nan), (3, math.inf), (4, 80.0), (5, 70.0)]),
        rows("train", decay(400, 20)) + rows("test", [(200, 5.0), (400, math.nan)]),
        rows("test", decay(600_000, 60)) + rows("train_subset", decay(600_000, 60)),
    ],
    ids=["one point", "no error", "one evaluation", "gaps", "NaN at the end", "two splits"],
)
def test_it_draws_what_there_is(tmp_path, log):
    assert ink(draw(tmp_path, log)) > 20


@pytest.mark.parametrize(
    "log",
    [
        [],
        [{"step": 1, "split": "train", "loss": 1.0}],
        rows("train", [(1, math.nan)]),
        rows("test", [(0, "NaN")]),
    ],
    ids=["no rows", "no errors", "only NaN", "step 0"],
)
def test_without_an_error_it_draws_no_curve(tmp_path, log):
    assert draw(tmp_path, log).shape == (660, 960, 3)


def test_what_comes_before_the_errors_are_down_does_not_flatten_the_rest(tmp_path):
    start = [(step, 90.0) for step in range(1, 100)]
    late = [(step, 10.0) for step in range(200, 1001, 10)]
    image = draw(tmp_path, rows("test", start + late))
    heights = np.nonzero(image[:, 600].max(-1) - image[:, 600].min(-1) > 100)[0]
    assert heights.mean() < 330  # of 660 pixels: 10% is in the upper half


def test_it_leaves_no_state_and_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)  # others' tests import it
    draw(tmp_path, rows("test", decay(400, 4)))
    assert "matplotlib.pyplot" not in sys.modules
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["curves.png"]
