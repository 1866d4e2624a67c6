"""Features against explicit computations, and what the plots of them show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resnet_jax import InputError, ResidualBlock, ResNet, features
from resnet_jax.analysis import Gradients, plots
from resnet_jax.analysis.features import (
    first_filters,
    grad_cam,
    output_shapes,
    receptive_fields,
    strongest_patches,
)
from resnet_jax.data import Box
from tests.models.torch_reference import random_variables
from tests.quick import few_optimizations

RNG = np.random.default_rng(0)
MODEL = ResNet((1, 1), block=ResidualBlock, width=2, num_classes=3, stem="cifar")
VARIABLES = random_variables(MODEL, 8)
IMAGES = RNG.normal(0.3, 1, (7, 8, 8, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def quick():
    with few_optimizations():
        yield


def maps_of(layer, model=MODEL, variables=VARIABLES, images=IMAGES):
    run = jax.jit(features, static_argnums=(0, 3))
    return np.asarray(run(model, variables, images, (layer,))[layer])


def test_shapes_are_in_the_order_of_computation():
    shapes = output_shapes(MODEL, (8, 8, 3))
    assert list(shapes)[:4] == ["stem/conv", "stem/bn", "stem", "stage1/block1/conv1"]
    assert list(shapes)[-3:] == ["stage2/block1", "stage2", "head"]
    assert shapes["stage2"] == maps_of("stage2").shape[1:] == (4, 4, 4)
    assert shapes["head"] == (3,)


@pytest.mark.parametrize("target", [None, 0, 2])
def test_grad_cam_of_pooling_and_a_linear_head_is_cam(target):
    cam, probabilities = grad_cam(MODEL, VARIABLES, jnp.asarray(IMAGES[0]), "stage2", target)
    maps, head = maps_of("stage2")[0], VARIABLES["params"]["head"]
    logits = maps.mean((0, 1)) @ head["kernel"] + head["bias"]
    expected = np.exp(logits - logits.max())
    np.testing.assert_allclose(probabilities, expected / expected.sum(), rtol=1e-4)
    # Zhou et al., arXiv 1512.04150: the maps weighted by the head; pooling divides by the area.
    of_class = head["kernel"][:, logits.argmax() if target is None else target]
    expected = np.maximum(maps @ of_class, 0) / (4 * 4)
    np.testing.assert_allclose(cam, expected, rtol=1e-4, atol=1e-6)


def test_patches_are_the_strongest_of_all_images():
    maps = maps_of("stage1/block1/conv2")[..., 1]
    strongest = maps.reshape(7, -1).max(axis=1)
    filled = np.concatenate([IMAGES, np.full((2, 8, 8, 3), 9, np.float32)])
    for count in (1, 4, 9):
        found = strongest_patches(
            *(MODEL, VARIABLES),
            (jnp.asarray(filled[i : i + 3]) for i in (0, 3, 6)),
            *("stage1/block1/conv2", 1),
            examples=7,
            count=count,
        )
        assert [patch.example for patch in found] == np.argsort(-strongest)[:count].tolist()
        for value, example, row, column in found:
            assert value == pytest.approx(maps[example, row, column], rel=1e-5)
            assert value == pytest.approx(strongest[example], rel=1e-5)


def test_receptive_fields_are_the_pixels_that_reach_a_position():
    model, pixels = ResNet((1, 1), block=ResidualBlock, width=2, num_classes=2), 40
    layers = ("stem", "stage2/block1/conv1", "stage2")
    variables = random_variables(model, pixels)
    lines = np.where(np.eye(pixels, dtype=bool), np.nan, 1).astype(np.float32)
    run = jax.jit(features, static_argnums=(0, 3))
    rows, columns = (  # a line's number is that of its image
        run(model, variables, np.broadcast_to(by[..., None], (*[pixels] * 3, 3)), layers)
        for by in (lines[:, :, None], lines[:, None])
    )
    for layer in layers:
        side = rows[layer].shape[1]
        positions = [(0, side // 2), (side - 1, 0), (side // 2, side - 1)]
        boxes = receptive_fields(model, (pixels, pixels, 3), layer, positions)
        for position, box in zip(positions, boxes, strict=True):
            vertical, horizontal = (
                np.nonzero(np.isnan(of[layer][:, *position]).any(-1))[0] for of in (rows, columns)
            )
            reached = (horizontal[0], vertical[0], horizontal[-1] + 1, vertical[-1] + 1)
            assert box == reached, (layer, position)


class Odd(nn.Module):
    """A network without a convolution of the image, and with a module that only rearranges."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dropout(0.5, deterministic=True, name="dropout")(x[:, ::-1])
        return nn.Dense(2, name="head")(x.mean((1, 2)))


def test_filters_are_the_first_kernel():
    name, kernel = first_filters(MODEL, VARIABLES, (8, 8, 3))
    assert name == "stem/conv"
    np.testing.assert_array_equal(kernel, VARIABLES["params"]["stem"]["conv"]["kernel"])


def test_what_is_not_known_is_refused():
    with pytest.raises(InputError, match="Odd has no convolution of grey or colour images"):
        first_filters(Odd(), {"params": {}}, (8, 8, 3))
    with pytest.raises(InputError, match="receptive field of dropout is not known"):
        receptive_fields(Odd(), (8, 8, 3), "dropout", [(0, 0)])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_plot_of_filters_has_one_scale_with_zero_in_the_middle(channels):
    kernel = RNG.normal(size=(12, 12, channels, 10)).astype(np.float32)
    axes, bar = plots.plot_filters(kernel, "title").axes
    size = np.abs(kernel).max()
    assert bar.get_ylim() == pytest.approx((-size, size))
    shown = np.asarray(axes.images[-1].get_array())
    second_row = shown[13:25, 13:25, ...]  # of five filters each, with a gap
    expected = kernel[..., 6] if channels == 1 else 0.5 + kernel[..., 6] / size / 2
    np.testing.assert_allclose(second_row, np.squeeze(expected), rtol=1e-5)


def test_the_plot_of_activations_has_the_first_channels():
    image = RNG.integers(0, 256, (6, 6, 1), np.uint8)
    positive = RNG.uniform(0, 2, (12, 12, 20)).astype(np.float32)
    figure = plots.plot_activations(image, {"a": positive, "b": positive[..., :2] - 1}, "title")
    shown, first, second = (axes.images[0] for axes in figure.axes[:3])
    np.testing.assert_array_equal(shown.get_array(), np.repeat(image, 3, axis=-1))
    np.testing.assert_array_equal(first.get_array()[13:25, 26:38], positive[..., 6])
    assert first.get_clim() == (0, positive[..., :16].max())
    low, high = second.get_clim()
    assert -low == high == np.abs(positive[..., :2] - 1).max()
    assert figure.axes[1].get_title() == "a: 12x12\nchannels 0 to 15 of 20"


def test_the_plot_of_patches_has_the_boxes_and_what_is_inside():
    images = RNG.integers(0, 256, (2, 6, 9, 3), np.uint8)
    boxes = [Box(0, 1, 4, 6), Box(3, 0, 9, 2)]
    figure = plots.plot_patches(images, boxes, ["first", "second"], "title")
    second = next(axes for axes in figure.axes if axes.get_title() == "second")
    x, y = second.lines[0].get_data()
    assert (min(x), max(x), min(y), max(y)) == (2.5, 8.5, -0.5, 1.5)
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    np.testing.assert_array_equal(shown[1], images[1])
    np.testing.assert_array_equal(shown[-1], images[1, :2, 3:9])


def test_the_plot_of_grad_cam_covers_the_image():
    cam = RNG.uniform(0, 3, (2, 3)).astype(np.float32)
    image = RNG.integers(0, 256, (8, 12, 3), np.uint8)
    left, right, _ = plots.plot_grad_cam(image, cam, "stage2", "title").axes
    np.testing.assert_array_equal(left.images[0].get_array(), image)
    under, over = right.images
    np.testing.assert_array_equal(over.get_array(), cam)
    assert list(over.get_extent()) == list(under.get_extent()) == [-0.5, 11.5, 7.5, -0.5]
    assert over.get_clim() == (0, cam.max())


@pytest.mark.parametrize("layers", [3, 40])
def test_the_plot_of_gradients_has_all_layers(layers):
    values = RNG.uniform(1e-4, 1, (4, layers)).astype(np.float32)
    names = tuple(f"layer{i}" for i in range(layers))
    axes = plots.plot_gradients(Gradients(names, *values), "title").axes
    for at, number in zip(axes, (3, 2, 1), strict=True):  # signal, response, relative
        np.testing.assert_array_equal(at.lines[0].get_ydata(), values[number])
        low, high = at.get_ylim()
        assert low <= values[number].min() < values[number].max() <= high
    labels = [label.get_text() for label in axes[-1].get_xticklabels()]
    assert (labels == list(names)) == (layers == 3)
