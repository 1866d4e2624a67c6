import jax
import numpy as np
import pytest

from resnet_jax import InputError
from resnet_jax.data import (
    DecodedImages,
    Example,
    MemoryImages,
    load_images,
    measure_statistics,
    statistics_template,
)
from resnet_jax.data.statistics import IMAGENET_COMPONENTS, _components
from tests.data.pictures import photo, write_folder


class Pixels:
    """Images given as an array."""

    class_names = ("zero", "one")

    def __init__(self, pixels):
        self._pixels = pixels
        self.image_shape = pixels.shape[1:]

    def __len__(self):
        return len(self._pixels)

    def read(self, indices, crops=None):
        assert crops is None
        return self._pixels[indices], indices.astype(np.int32) % 2


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def chunks(monkeypatch, request):
    for name, size in zip(("_CHUNK", "_BLOCK"), request.param, strict=True):
        monkeypatch.setattr(f"resnet_jax.data.statistics.{name}", size)


@pytest.mark.parametrize("chunks", [(1, 3), (1000, 48), (2**24, 2**18)], indirect=True)
@pytest.mark.parametrize("mean", ["pixel", "channel", "none"])
@pytest.mark.parametrize("std", ["channel", "none"])
def test_statistics_equal_numpys(chunks, mean, std):
    pixels = noise(37, 5, 5, 3) // np.array([1, 2, 3], np.uint8)
    statistics = measure_statistics(Pixels(pixels), mean, std)
    exact = pixels.astype(np.float64)
    means = {"pixel": exact.mean(0), "channel": exact.mean((0, 1, 2)), "none": np.zeros(3)}
    stds = {"channel": exact.std((0, 1, 2)), "none": np.ones(3)}
    np.testing.assert_allclose(statistics.mean, means[mean], rtol=1e-7)
    np.testing.assert_allclose(statistics.std, stds[std], rtol=1e-7)
    assert statistics.color is None


@pytest.mark.parametrize("most", [None, 11])
@pytest.mark.parametrize("chunks", [(1000, 48)], indirect=True)
def test_shares_make_the_same_statistics_bit_for_bit(chunks, most):
    images = Pixels(noise(37, 5, 5, 3))
    shares = []

    def total(examples, of):
        ends = [0, 3, 3, 10, examples]
        shares.extend(map(range, ends, ends[1:]))
        return sum(map(of, shares))

    wanted = {"mean": "pixel", "std": "channel", "color": "pca", "most": most}
    for one, other in zip(
        measure_statistics(images, **wanted, total=total),
        measure_statistics(images, **wanted),
        strict=True,
    ):
        assert one.tobytes() == other.tobytes()
    assert shares[-1].stop == (most or 37)


@pytest.mark.parametrize("mean", ["pixel", "channel", "none"])
@pytest.mark.parametrize("color", ["pca", "pca_imagenet", "none"])
def test_the_template_has_the_shapes_and_types(mean, color):
    statistics = measure_statistics(Pixels(noise(4, 5, 5, 3)), mean, "channel", color=color)
    template = statistics_template((5, 5, 3), mean=mean, color=color)
    assert jax.tree.structure(statistics) == jax.tree.structure(template)
    for measured, expected in zip(
        jax.tree.leaves(statistics), jax.tree.leaves(template), strict=True
    ):
        assert (measured.shape, measured.dtype) == (expected.shape, np.float32)
    names = {"mean", "std"} | ({"color"} if color != "none" else set())
    assert statistics.arrays().keys() == template.arrays().keys() == names


def test_statistics_of_one_example_are_exact():
    pixels = noise(2, 4, 4, 1)
    mean, std, color = measure_statistics(Pixels(pixels), "pixel", "none")
    np.testing.assert_array_equal(mean, pixels.sum(0) / np.float32(2))
    np.testing.assert_array_equal(std, 1)
    assert color is None


@pytest.mark.parametrize("most", [1, 5, 36, 37, 1000])
def test_statistics_of_some_are_of_evenly_spaced_ones(most):
    pixels = noise(37, 5, 5, 3)
    chosen = [number * 37 // most for number in range(most)] if most < 37 else slice(None)
    wanted = {"mean": "pixel", "std": "channel", "color": "pca"}
    statistics = measure_statistics(Pixels(pixels), **wanted, most=most)
    expected = measure_statistics(Pixels(pixels[chosen]), **wanted)
    for measured, of_chosen in zip(statistics, expected, strict=True):
        np.testing.assert_array_equal(measured, of_chosen)


@pytest.mark.parametrize("chunks", [(1, 3), (2000, 48), (2**24, 2**18)], indirect=True)
@pytest.mark.parametrize("std", ["channel", "none"])
def test_components_of_colour_are_those_of_numpys_covariance(chunks, std):
    pixels = np.stack([photo(16, 12, seed) for seed in range(23)])
    color = measure_statistics(Pixels(pixels), "none", std, color="pca").color
    covariance = np.cov(pixels.reshape(-1, 3).T / 255, bias=True)
    # Each is an eigenvector times its eigenvalue, of pixels from 0 to 1, in units of 0 to 255.
    eigenvalues = np.linalg.norm(color / 255, axis=0)
    eigenvectors = color / 255 / eigenvalues
    np.testing.assert_allclose(
        eigenvectors * eigenvalues @ eigenvectors.T, covariance, rtol=1e-5, atol=1e-8
    )
    np.testing.assert_allclose(eigenvectors.T @ eigenvectors, np.eye(3), atol=1e-5)
    assert list(eigenvalues) == sorted(eigenvalues, reverse=True)
    largest = np.abs(eigenvectors).argmax(axis=0)
    assert (eigenvectors[largest, range(3)] > 0).all()


def test_components_of_files_are_those_of_what_is_read(tmp_path):
    write_folder(tmp_path, {"train": {"a": 6, "b": 6}})
    images = load_images("folder", "train", 24, path=tmp_path)
    color = measure_statistics(images, "none", "none", color="pca").color
    pixels, _ = images.read(np.arange(12))
    exact = _components(np.cov(pixels.reshape(-1, 3).T.astype(np.float64), bias=True))
    np.testing.assert_allclose(color, exact, rtol=1e-5, atol=1e-6)


def test_colours_that_do_not_vary_have_components_of_zero():
    grey = np.repeat(noise(5, 4, 4, 1), 3, axis=3)
    color = measure_statistics(Pixels(grey), "none", "none", color="pca").color
    variance = (grey[..., 0] / 255).var()
    np.testing.assert_allclose(color[:, 0], 255 * 3 * variance / np.sqrt(3), rtol=1e-5)
    np.testing.assert_allclose(color[:, 1:], 0, atol=1e-4)


def test_components_of_imagenet_are_orthogonal_and_of_the_published_size():
    color = IMAGENET_COMPONENTS / 255
    np.testing.assert_allclose(np.linalg.norm(color, axis=0), [0.2175, 0.0188, 0.0045], rtol=2e-4)
    unit = color / np.linalg.norm(color, axis=0)
    np.testing.assert_allclose(unit.T @ unit, np.eye(3), atol=2e-4)
    # Brightness, then blue against red, then green against both.
    assert (color[:, 0] < 0).all()
    assert color[0, 1] > 0 > color[2, 1]
    assert color[0, 2] > 0 > color[1, 2]
    # Not measured, so nothing is read.
    images = Pixels(np.zeros((0, 4, 4, 3), np.uint8))
    taken = measure_statistics(images, "none", "none", color="pca_imagenet").color
    np.testing.assert_array_equal(taken, IMAGENET_COMPONENTS.astype(np.float32))


def test_the_mean_image_is_that_of_the_evaluation_view():
    class Photos:
        class_names = ("zero",)

        def __len__(self):
            return 5

        def __getitem__(self, index):
            return Example(photo(300, 260 + index, seed=index), 0, f"photos/{index}")

    images = DecodedImages(Photos(), 224, resize=256)
    mean = measure_statistics(images, "pixel", "channel").mean
    kept = MemoryImages(images).read(np.arange(5))[0]
    assert mean.shape == (224, 224, 3)
    np.testing.assert_allclose(mean, kept.mean(axis=0, dtype=np.float64), rtol=1e-6)


def test_statistics_of_no_examples_are_refused():
    with pytest.raises(
        InputError, match=r"^statistics are measured on at least 1 example, not on 0$"
    ):
        measure_statistics(Pixels(noise(1, 4, 4, 1)), "pixel", "none", most=0)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"mean": "pixels"}, "there is no mean of images 'pixels'; did you mean pixel?"),
        (
            {"std": "chanel"},
            "there is no standard deviation of images 'chanel'; did you mean channel?",
        ),
        ({"color": "pcb"}, "there is no kind of random colours 'pcb'; did you mean pca?"),
        (
            {"color": "pca"},
            "colours are varied in images with red, green and blue, and these have 1 channel; set "
            'data.color to "none"',
        ),
        (
            {"color": "pca_imagenet"},
            "colours are varied in images with red, green and blue, and these have 1 channel; set "
            'data.color to "none"',
        ),
        (
            {"std": "channel"},
            "a channel of the images is the same everywhere and cannot be divided by its standard "
            'deviation; take std "none"',
        ),
    ],
)
def test_wrong_statistics_are_refused(wanted, message):
    images = Pixels(np.full((1, 4, 4, 1), 9, np.uint8))
    with pytest.raises(InputError) as error:
        measure_statistics(images, **{"mean": "none", "std": "none", **wanted})
    assert str(error.value) == message


def test_statistics_of_nothing_are_refused():
    with pytest.raises(
        InputError, match=r"^statistics are measured on at least 1 example, not on 0$"
    ):
        measure_statistics(Pixels(np.zeros((0, 4, 4, 1), np.uint8)), "pixel", "none")
