import hashlib

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


@given(
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 10**9),
    share=st.integers(1, 8),
    processes=st.sampled_from([1, 2, 4, 8]),
)
def test_draws_do_not_depend_on_the_number_of_processes(seed, step, share, processes):
    policy = augmentation("pad_crop_flip", image_size=32)
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
