import hashlib
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax import InputError
from resnet_jax.data import (
    Augmentation,
    Draws,
    InceptionCrop,
    Order,
    ScaleJitter,
    Stream,
    augmentation,
)
from resnet_jax.data.draws import _normal_quantiles


@given(
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 10**9),
    share=st.integers(1, 8),
    processes=st.sampled_from([1, 2, 4, 8]),
)
def test_draws_do_not_depend_on_the_number_of_processes(seed, step, share, processes):
    policy = augmentation("pad_crop_flip", image_size=32, color_std=0.1)
    batch_size = share * processes
    whole = policy(Draws(seed, step, batch_size, slice(0, batch_size)))
    slices = [slice(first, first + share) for first in range(0, batch_size, share)]
    parts = [policy(Draws(seed, step, batch_size, rows)) for rows in slices]
    for name, expected in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), expected)


def test_augmentations_add_their_arrays_only():
    draws = Draws(seed=0, step=3, batch_size=8, rows=slice(2, 6))
    assert augmentation("none", image_size=32)(draws) == {}
    crop = augmentation("pad_crop", image_size=32)(draws)
    both = augmentation("pad_crop_flip", image_size=32)(draws)
    assert crop.keys() == {"crop_offset"}
    assert both.keys() == {"crop_offset", "flip"}
    assert (crop["crop_offset"].dtype, crop["crop_offset"].shape) == (np.int32, (4, 2))
    assert (both["flip"].dtype, both["flip"].shape) == (np.bool_, (4,))
    # What else is drawn leaves the crops as they are.
    np.testing.assert_array_equal(crop["crop_offset"], both["crop_offset"])


def test_draws_are_equally_likely():
    rows = slice(0, 90_000)
    arrays = augmentation("pad_crop_flip", image_size=32)(Draws(0, 0, rows.stop, rows))
    for counts in [
        *(np.bincount(offset, minlength=9) for offset in arrays["crop_offset"].T),
        np.bincount(arrays["crop_offset"] @ np.array([9, 1]), minlength=81),
        np.bincount(arrays["flip"], minlength=2),
    ]:
        expected = rows.stop / len(counts)
        freedom = len(counts) - 1
        # Four standard deviations of chi-squared, and some more for its skew.
        assert ((counts - expected) ** 2 / expected).sum() < freedom + 6 * np.sqrt(2 * freedom)


def test_offsets_reach_both_ends():
    rows = slice(0, 2000)
    offsets = augmentation("pad_crop", image_size=32, padding=2)(Draws(0, 0, 2000, rows))[
        "crop_offset"
    ]
    assert set(offsets.ravel().tolist()) == {0, 1, 2, 3, 4}


def test_steps_seeds_and_streams_differ():
    def numbers(seed, step, stream):
        return tuple(Draws(seed, step, 64, slice(0, 64)).integers(stream, 2**31)[:, 0].tolist())

    drawn = [
        numbers(seed, step, stream)
        for seed in range(3)
        for step in range(3)
        for stream in (Stream.CROP, Stream.FLIP)
    ]
    assert len({number for row in drawn for number in row}) == len(drawn) * 64


def test_draws_are_independent_of_the_order():
    draws = Draws(seed=0, step=0, batch_size=1000, rows=slice(0, 1000))
    like_the_order = np.argsort(draws.integers(Stream.CROP, 2**31)[:, 0], kind="stable")
    # Two unrelated permutations of 1000 agree in one place on average.
    assert (like_the_order == Order(1000, 1000, 0).indices(0)).sum() < 10


def test_draws_stay_what_they_were():
    digest = hashlib.sha256()
    for step in range(3):
        arrays = augmentation("pad_crop_flip", image_size=32)(Draws(7, step, 64, slice(0, 64)))
        digest.update(arrays["crop_offset"].astype("<i4").tobytes())
        digest.update(arrays["flip"].astype("u1").tobytes())
    assert arrays["crop_offset"][:3].tolist() == [[7, 2], [3, 2], [2, 4]]
    assert digest.hexdigest() == "f5da80d1bf9cfd7725af18a16a5e5911628edfbbc31007cc184656ad2cda2477"


def test_normals_are_normal():
    rows = slice(0, 200_000)
    normals = Draws(0, 0, rows.stop, rows).normals(Stream.COLOR, per_example=3)
    assert (normals.dtype, normals.shape) == (np.float32, (rows.stop, 3))
    n = normals.size
    exact = normals.astype(np.float64)
    # Four standard deviations of what is estimated.
    assert abs(exact.mean()) < 4 / np.sqrt(n)
    assert abs(exact.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((exact**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((exact**4).mean() - 3) < 4 * np.sqrt(96 / n)
    np.testing.assert_allclose(np.corrcoef(exact.T), np.eye(3), atol=4 / np.sqrt(rows.stop))
    # Kolmogorov and Smirnov's distance; one in a thousand is larger.
    cdf = statistics.NormalDist().cdf
    drawn = np.sort(exact.ravel())[::1000]
    distance = np.abs(np.vectorize(cdf)(drawn) - np.arange(0, n, 1000) / n).max()
    assert distance < 1.95 / np.sqrt(n)


def test_levels_of_normals_are_far_from_where_machines_would_round_differently():
    levels = _normal_quantiles()
    assert len(levels) == 2**16
    np.testing.assert_array_equal(levels, -levels[::-1])
    assert (np.diff(levels) > 0).all()
    assert levels[-1] == np.float32(4.3249187)
    quantile = statistics.NormalDist().inv_cdf
    exact = np.array([quantile((n + 0.5) / 2**16) for n in range(2**16)]) * 2.0**20
    np.testing.assert_array_equal(np.rint(exact), levels * np.float32(2**20))
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-6  # and doubles are exact to 1e-9
    digest = hashlib.sha256(levels.astype("<f4").tobytes()).hexdigest()
    assert digest == "c626a2537fccfd81f85b4169ad6b24e695a0fac237e8139a7bd694436252de76"


def test_coefficients_of_colour_have_their_standard_deviation_and_disturb_nothing():
    draws = Draws(seed=0, step=3, batch_size=4096, rows=slice(1024, 3072))
    plain = augmentation("scale_jitter", image_size=32)(draws)
    arrays = augmentation("scale_jitter", image_size=32, color_std=0.1)(draws)
    assert arrays.keys() == {"flip", "color"}
    np.testing.assert_array_equal(arrays["flip"], plain["flip"])
    color = arrays["color"]
    assert (color.dtype, color.shape) == (np.float32, (2048, 3))
    assert abs(color.mean()) < 4 * 0.1 / np.sqrt(color.size)
    assert abs(color.std() - 0.1) < 4 * 0.1 / np.sqrt(2 * color.size)
    np.testing.assert_array_equal(color, np.float32(0.1) * draws.normals(Stream.COLOR, 3))


def test_colours_stay_what_they_were():
    policy = augmentation("none", image_size=32, color_std=0.1)
    color = policy(Draws(7, 2, 64, slice(0, 64)))["color"]
    digest = hashlib.sha256(color.astype("<f4").tobytes()).hexdigest()
    np.testing.assert_allclose(color[0], [0.060734, -0.070302, -0.092406], atol=1e-6)
    assert digest == "f13bc0556e60e9af711846e01587021857507fabcd42dfbd806681dcc7d64d9a"


@pytest.mark.parametrize("color_std", [-0.1, float("nan"), float("inf")])
def test_wrong_coefficients_of_colour_are_refused(color_std):
    with pytest.raises(InputError) as error:
        augmentation("none", image_size=32, color_std=color_std)
    assert str(error.value) == (
        f"the standard deviation of coefficients of colour is 0 or more, and {color_std} is not"
    )


def test_names_stand_for_policies():
    assert augmentation("none", image_size=32, padding=3) == Augmentation(padding=0, flip=False)
    assert augmentation("pad_crop", image_size=32) == Augmentation(padding=4, flip=False)
    assert augmentation("pad_crop_flip", image_size=32, padding=2) == Augmentation(
        padding=2, flip=True
    )
    assert augmentation("scale_jitter", image_size=224) == Augmentation(
        crop=ScaleJitter(224, 256, 480), flip=True
    )
    assert augmentation("random_crop", image_size=224) == Augmentation(
        crop=ScaleJitter(224, 256, 256), flip=True
    )
    assert augmentation("scale_jitter", image_size=32).crop == ScaleJitter(32, 37, 69)
    assert augmentation("inception_crop", image_size=32) == Augmentation(
        crop=InceptionCrop(), flip=True
    )


def test_unknown_augmentation_is_refused():
    with pytest.raises(InputError) as error:
        augmentation("pad_crop_flop", image_size=32)
    assert "there is no augmentation 'pad_crop_flop'; did you mean pad_crop_flip" in str(
        error.value
    )


def test_negative_padding_is_refused():
    with pytest.raises(InputError, match=r"^padding is 0 pixels or more, and -1 is not$"):
        augmentation("pad_crop", image_size=32, padding=-1)
