import io

import numpy as np
import pytest
from PIL import Image

from resnet_jax import InputError
from resnet_jax.data import Augmentation, Order, Statistics, augmentation, measure_statistics
from resnet_jax.data.show import Plot, draw, plot_evaluation, plot_training
from tests.data.test_statistics import Pixels, noise

AS_IT_IS = Statistics(mean=np.zeros(3, np.float32), std=np.ones(3, np.float32))


def plots_of(images, statistics=AS_IT_IS, policy=None, **options):
    usual = {"batch_size": 4, "seed": 5, "step": 0, "count": 3}
    return plot_training(images, policy or Augmentation(), statistics, **{**usual, **options})


def test_shows_the_first_images_of_a_batch():
    pixels = noise(11, 6, 6, 3)
    images = Pixels(pixels)
    trained, evaluated = plots_of(images, step=2)
    indices = Order(11, 4, 5).indices(2)[:3]
    np.testing.assert_array_equal(trained.images, pixels[indices])
    np.testing.assert_array_equal(evaluated.images, pixels[indices])
    assert trained.captions == tuple(("zero", "one")[index % 2] for index in indices)
    assert evaluated.captions == trained.captions
    assert (trained.title, evaluated.title) == (
        "in training, step 2",
        "the same images in evaluation",
    )


def test_a_batch_has_no_more_images_than_its_size():
    trained, evaluated = plots_of(Pixels(noise(11, 6, 6, 3)), step=2, count=9)
    assert len(trained.images) == len(evaluated.images) == len(trained.captions) == 4


def test_shows_what_is_drawn_for_the_batch():
    pixels = noise(8, 6, 6, 3)
    trained, evaluated = plots_of(
        Pixels(pixels), policy=augmentation("pad_crop_flip", image_size=6, padding=1), count=4
    )
    for one, original in zip(trained.images, evaluated.images, strict=True):
        padded = np.pad(original, ((1, 1), (1, 1), (0, 0)))
        crops = [
            sheet[top : top + 6, left : left + 6]
            for sheet in (padded, padded[:, ::-1])
            for top in range(3)
            for left in range(3)
        ]
        assert any(np.array_equal(one, crop) for crop in crops)


def test_colours_change_and_only_in_training():
    images = Pixels(np.full((8, 4, 4, 3), 128, np.uint8))
    statistics = measure_statistics(images, "none", "none", color="pca_imagenet")
    policy = augmentation("none", image_size=4, color_std=0.1)
    trained, evaluated = plots_of(images, statistics, policy, count=4)
    np.testing.assert_array_equal(evaluated.images, 128)
    of_image = trained.images[:, 0, 0].astype(int)
    np.testing.assert_array_equal(
        trained.images, np.broadcast_to(of_image[:, None, None], (4, 4, 4, 3))
    )
    assert len({tuple(colour) for colour in of_image.tolist()}) == 4
    assert 0 < np.abs(of_image - 128).max() < 30


def test_the_mean_image_is_missing_but_for_its_colour():
    pixels = noise(4, 6, 6, 3) // 4 + np.uint8(96)
    mean = np.zeros((6, 6, 3), np.float32)
    mean[:3] = 20
    statistics = Statistics(mean=mean, std=np.array([50, 60, 70], np.float32))
    plot = plot_evaluation(Pixels(pixels), statistics, count=9)
    expected = pixels.astype(int) - mean.astype(int) + 10
    np.testing.assert_array_equal(plot.images, expected)
    assert plot.captions == ("zero", "one", "zero", "one")


def test_contrast_is_reduced_where_it_would_be_cut_off():
    pixels = np.zeros((2, 10, 10, 1), np.uint8)
    pixels[1] = 255
    statistics = Statistics(mean=np.full((10, 10, 1), 100, np.float32), std=np.ones(1, np.float32))
    statistics.mean[5:] = 0
    plot = plot_evaluation(Pixels(pixels), statistics, count=2)
    # From 0 - 100 + 50 to 255 - 0 + 50.
    assert sorted(set(plot.images.ravel().tolist())) == [0, round(255 * 100 / 355), 183, 255]


def test_negative_steps_are_refused():
    with pytest.raises(InputError, match=r"^steps are counted from 0, not -1$"):
        plots_of(Pixels(noise(8, 6, 6, 3)), step=-1)


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize(
    ("size", "side"), [(8, 112), (12, 108), (32, 128), (224, 224), (300, 150), (520, 174)]
)
def test_images_are_enlarged_or_reduced_by_whole_numbers(size, side):
    colours = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    pixels = np.broadcast_to(colours[:, None, None], (2, size, size, 3))
    sheet = opened(draw([Plot("a", pixels, ("x", "y"))], columns=2, title="data", note="as it is"))
    for colour, number in zip(colours, range(2), strict=True):
        rows, columns = np.nonzero((sheet == colour).all(axis=-1))
        assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == side
        assert columns.min() == 16 + number * (side + 6)


def test_grey_images_stay_grey_and_pixels_stay_pixels():
    pixels = noise(1, 8, 8, 1)
    sheet = opened(draw([Plot("a", pixels, ("x",))], columns=1, title="t", note="n"))
    at = sheet.shape[0] - 16 - 6 - 18 - 112
    shown = sheet[at : at + 112, 16 : 16 + 112]
    expected = np.kron(pixels[0], np.ones((14, 14, 1), np.uint8))
    np.testing.assert_array_equal(shown, np.broadcast_to(expected, shown.shape))


def test_the_same_plots_make_the_same_file():
    plots = plots_of(Pixels(noise(8, 8, 8, 3)), count=6, batch_size=8)
    options = {"columns": 3, "title": "data", "note": "as it is"}
    one = draw(plots, **options)
    assert one == draw(plots, **options)
    assert opened(one).shape[1] == 2 * 16 + 2 * (3 * 118 - 6) + 28
    assert one != draw(plots[::-1], **options)


def test_captions_are_fitted_and_taken_literally():
    pixels = noise(1, 8, 8, 3)
    long = "sulphur-crested cockatoo, Kakatoe galerita"
    sheets = [
        opened(draw([Plot("a", pixels, (name,))], columns=1, title="t", note="n"))
        for name in (long, long + " the second", r"$\frac{1}{2}$", "")
    ]
    np.testing.assert_array_equal(sheets[0], sheets[1])
    assert sheets[0].shape == sheets[2].shape == sheets[3].shape
    # Nothing reaches the edge of the sheet.
    assert (sheets[0][-40:, :4] == 255).all()
    assert (sheets[0][-40:, -4:] == 255).all()
    assert (sheets[2] != sheets[3]).any()


@pytest.mark.parametrize("name", ["\u732b", "cat\n", "\udcff"])  # a cat, a line, a stray byte
def test_what_the_font_lacks_is_written_as_an_escape(name):
    """Quietly, and so that classes can still be told apart."""
    pixels = noise(1, 8, 8, 3)
    sheets = [
        draw([Plot("a", pixels, (text,))], columns=1, title=text, note="n")
        for text in (name, name.encode("unicode_escape").decode())
    ]
    assert sheets[0] == sheets[1]
