import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax import InputError
from resnet_jax.data import Draws, InceptionCrop, ScaleJitter, View

sizes = st.integers(1, 700)


def draws(count, seed=0, step=0, rows=None):
    return Draws(seed, step, count, rows or slice(0, count))


def assert_uniform(values, count):
    """Values from 0 to `count - 1` that are equally likely."""
    counts = np.bincount(values, minlength=count)
    assert len(counts) == count
    expected, freedom = len(values) / count, count - 1
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 6 * math.sqrt(2 * freedom)


def in_resized(box, height, width, side):
    """Returns where a box lies in the image whose shorter side was resized, in its pixels."""
    shorter = min(height, width)
    tall, wide = side * height // shorter, side * width // shorter
    top, left = box.upper * tall / height, box.left * wide / width
    bottom, right = box.lower * tall / height, box.right * wide / width
    return top, left, bottom, right, tall, wide


@given(height=sizes, width=sizes)
def test_centre_crop_is_torchvisions(height, width):
    # Resize(256), whose longer side is int(256 * longer / shorter), and CenterCrop(224).
    box = View(256, 224)(height, width).box
    top, left, bottom, right, tall, wide = in_resized(box, height, width, 256)
    assert (tall, wide) == (
        (int(256 * height / width), 256) if width <= height else (256, int(256 * width / height))
    )
    expected = round((tall - 224) / 2.0), round((wide - 224) / 2.0)
    np.testing.assert_allclose((top, left), expected, atol=1e-6)
    np.testing.assert_allclose((bottom - top, right - left), 224, atol=1e-6)


@given(size=sizes)
def test_square_images_of_the_right_size_are_taken_whole(size):
    assert View(size, size)(size, size).box == (0, 0, size, size)


@given(height=sizes, width=sizes, seed=st.integers(0, 2**64 - 1))
def test_boxes_lie_in_their_images(height, width, seed):
    for crop in (ScaleJitter(224, 256, 480), ScaleJitter(9, 9, 9), InceptionCrop()):
        crops = crop(draws(4, seed))
        for row in range(4):
            box = crops(row, height, width)
            assert 0 <= box.left < box.right <= width
            assert 0 <= box.upper < box.lower <= height


def test_jitter_is_uniform_over_sides_and_places():
    count, height, width = 10_000, 40, 50
    crop = ScaleJitter(32, 35, 40)
    crops = crop(draws(count))
    sides, places = [], []
    for row in range(count):
        box = crops(row, height, width)
        # The box's height says what the shorter side was.
        side = round(32 * height / (box.lower - box.upper))
        top, left, bottom, right, _, wide = in_resized(box, height, width, side)
        np.testing.assert_allclose((bottom - top, right - left), 32, atol=1e-9)
        sides.append(side - 35)
        if side == 40:
            assert wide == 50
            places.append(round(top) * 19 + round(left))
    assert_uniform(sides, 6)
    assert_uniform(places, 9 * 19)


def reference_resized_crop(rng, height, width):
    """RandomResizedCrop as its documentation has it, with Python's own random numbers."""
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1.0)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            return rng.randint(0, width - wide), rng.randint(0, height - tall), wide, tall
    if width / height < 3 / 4:
        wide, tall = width, round(width / (3 / 4))
    elif width / height > 4 / 3:
        wide, tall = round(height * (4 / 3)), height
    else:
        wide, tall = width, height
    return (width - wide) // 2, (height - tall) // 2, wide, tall


@pytest.mark.parametrize(("height", "width"), [(300, 400), (400, 300), (90, 1000), (31, 32)])
def test_inception_crops_are_distributed_like_the_reference(height, width):
    count, rng = 20_000, random.Random(0)
    crops = InceptionCrop()(draws(count))
    boxes = [crops(row, height, width) for row in range(count)]
    ours = np.array([(b.left, b.upper, b.right - b.left, b.lower - b.upper) for b in boxes])
    theirs = np.array([reference_resized_crop(rng, height, width) for _ in range(count)])
    for mine, reference in zip(ours.T, theirs.T, strict=True):
        # Two samples of Kolmogorov and Smirnov; beyond this once in 10^5 times.
        values = np.unique(np.concatenate([mine, reference]))
        cumulative = [
            np.searchsorted(np.sort(sample), values, "right") / count
            for sample in (mine, reference)
        ]
        distance = np.abs(cumulative[0] - cumulative[1]).max()
        assert distance < math.sqrt(math.log(2 / 1e-5) / count)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(10, 1000, (493, 0, 506, 10)), (1000, 10, (0, 493, 10, 506)), (1, 1, (0, 0, 1, 1))],
)
def test_images_that_no_crop_fits_give_their_centre(height, width, box):
    # Of a share of exactly the whole image; no proportions in the range have it.
    crops = InceptionCrop(area=(1.0, 1.0))(draws(8))
    assert [crops(row, height, width) for row in range(8)] == [box] * 8


@pytest.mark.parametrize("crop", [ScaleJitter(224, 256, 480), InceptionCrop()])
def test_crops_are_a_function_of_seed_step_and_row(crop):
    def boxes(seed, step, rows):
        crops = crop(draws(16, seed, step, rows))
        return [crops(row, 375, 500) for row in range(rows.stop - rows.start)]

    whole = boxes(1, 2, slice(0, 16))
    assert boxes(1, 2, slice(0, 8)) + boxes(1, 2, slice(8, 16)) == whole
    assert len(set(whole)) == 16
    assert not set(whole) & set(boxes(1, 3, slice(0, 16)) + boxes(2, 2, slice(0, 16)))


def test_crops_stay_what_they_were():
    jitter, inception = (
        crop(draws(4, 7, 3)) for crop in (ScaleJitter(224, 256, 480), InceptionCrop())
    )
    assert [round(value, 3) for value in jitter(0, 375, 500)] == [198.795, 10.321, 391.566, 202.982]
    assert [round(value, 3) for value in jitter(1, 375, 500)] == [172.414, 25.862, 494.253, 347.701]
    assert [inception(row, 375, 500) for row in (0, 1)] == [(72, 33, 433, 309), (65, 57, 271, 242)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: View(4, 0), "an image size is at least 1 pixel, and 0 is not"),
        (lambda: View(7, 8), "images resized to 7 pixels have no crop of 8"),
        (
            lambda: ScaleJitter(8, 7, 9),
            "images whose shorter side is from 7 to 9 pixels have no crops of 8",
        ),
        (
            lambda: ScaleJitter(8, 10, 9),
            "images whose shorter side is from 10 to 9 pixels have no crops of 8",
        ),
    ],
)
def test_impossible_crops_are_refused(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == message
