"""Protocols against the same written out, image by image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import InputError, create_model, features
from resnet_jax.config import base_config
from resnet_jax.evaluation import Network, Preparation, Protocol, ViewReader, predict
from resnet_jax.parallel import Replicas
from tests.data.pictures import photo
from tests.evaluation.plain import (
    Images,
    Plain,
    mean_image,
    multi_scale,
    single_crop,
    small_resnet,
    ten_crops,
)

IMAGES = Images()
SCALES = (32, 50)


def network(seed=0, size=32, resize=40, interpolation="bilinear", **fields):
    model, variables = small_resnet(seed=seed, **fields)
    return Network(
        name=f"network-{seed}",
        step=None,
        model=model,
        variables=variables,
        statistics=mean_image(size),
        preparation=Preparation(size, resize, interpolation),
        channels=3,
        class_names=None,
        num_classes=7,
        config=base_config(),
    )


def found_by(networks, protocol, *, devices=2, batch_size=4, source=IMAGES, mapping="pmap"):
    replicas = Replicas(mapping, devices=jax.devices()[:devices])
    reader = ViewReader(source, range(len(source)))
    predictions, _ = predict(networks, protocol, reader, replicas, batch_size=batch_size)
    return predictions


def written_out(one, views_of, source=IMAGES):
    """Returns the probabilities of each image, in numpy."""
    plain = Plain(one.model, one.variables, one.statistics)
    return np.stack([plain.probabilities(*views_of(pixels)) for pixels in source.pixels])


# A view that is missing or misplaced moves probabilities by 1e-2 and more, and the rounding of
# float32 by about 1e-6; another processor may round otherwise.
ROUNDING = 1e-4


def compare(predictions, expected, labels=IMAGES.labels):
    """Compares with probabilities; classes that are nearly equal may change places."""
    best = -np.sort(-expected, axis=1)[:, :5]
    np.testing.assert_allclose(predictions.probabilities, best, rtol=0, atol=ROUNDING)
    chosen = np.take_along_axis(expected, predictions.classes, axis=1)
    np.testing.assert_allclose(predictions.probabilities, chosen, rtol=0, atol=ROUNDING)
    of_label = expected[np.arange(len(labels)), labels]
    np.testing.assert_allclose(np.exp(-predictions.losses), of_label, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(predictions.labels, labels)
    assert best.max() > 0.3, "the network has to be sure of something"


@pytest.mark.parametrize(
    ("protocol", "views_of"),
    [
        (
            Protocol("single_crop", resize=48, crop=24, interpolation="bicubic"),
            functools.partial(single_crop, size=24, resize=48, interpolation="bicubic"),
        ),
        (Protocol("ten_crop"), functools.partial(ten_crops, size=32, resize=40)),
        (
            Protocol("ten_crop", resize=45, crop=30, interpolation="bicubic"),
            functools.partial(ten_crops, size=30, resize=45, interpolation="bicubic"),
        ),
        (Protocol("multi_scale", scales=SCALES), functools.partial(multi_scale, scales=SCALES)),
    ],
)
def test_scores_are_those_of_the_protocol_written_out(protocol, views_of):
    one, source = network(), Images(3)  # wide, square and tall
    found = found_by([one], protocol, source=source)
    compare(found, written_out(one, views_of, source), source.labels)


def test_ten_crops_of_images_that_need_no_resizing():
    """They are slices, and nothing of them is left to rounding."""
    one = network()
    source = Images()
    source.pixels = [
        photo(*size, seed=seed) for seed, size in enumerate([(40, 57), (40, 40), (91, 40)])
    ]
    source.labels = [0, 4, 6]
    expected = []
    plain = Plain(one.model, one.variables, one.statistics)
    for pixels in source.pixels:
        top, left = (round((side - 32) / 2) for side in pixels.shape[:2])
        crops = [
            pixels[top : top + 32, left : left + 32],
            *(pixels[:32, :32], pixels[:32, -32:], pixels[-32:, :32], pixels[-32:, -32:]),
        ]
        expected.append(plain.probabilities(crops, mirrored=True))
    seen = found_by([one], Protocol("ten_crop"), source=source)
    compare(seen, np.stack(expected), labels=source.labels)


def test_an_ensemble_averages_probabilities_of_networks_with_views_of_their_own():
    one = network()
    other = network(seed=1, size=24, resize=30, interpolation="bicubic", width=6, shortcut="A")
    expected = [
        written_out(one, functools.partial(ten_crops, size=32, resize=40)),
        written_out(
            other, functools.partial(ten_crops, size=24, resize=30, interpolation="bicubic")
        ),
    ]
    compare(found_by([one, other], Protocol("ten_crop")), np.mean(expected, axis=0))


@pytest.mark.parametrize(
    ("devices", "batch_size", "mapping"), [(1, 3, "pmap"), (8, 7, "shard_map")]
)
def test_any_number_of_devices_finds_the_same(devices, batch_size, mapping):
    one, protocol = network(), Protocol("multi_scale", scales=(32,))
    found = found_by([one], protocol, devices=devices, batch_size=batch_size, mapping=mapping)
    compare(found, written_out(one, functools.partial(multi_scale, scales=(32,))))


@pytest.mark.parametrize(
    ("model", "last"),
    [
        (small_resnet()[0], "stage1"),
        pytest.param(
            create_model("googlenet", width=8, num_classes=7), "inception5b", marks=pytest.mark.slow
        ),
        pytest.param(
            create_model("bn_inception", width=8, num_classes=7),
            "inception5b",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_head_as_a_convolution_averaged_over_positions_is_the_pooled_form(model, last):
    """At any size, which is why networks are applied as they are."""
    images = jax.random.normal(jax.random.key(1), (1, 96, 128, 3))
    with jax.default_prng_impl("rbg"):
        variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images)
    maps = jax.jit(features, static_argnums=(0, 3))(model, variables, images, (last,))[last]
    head = variables["params"]["head"]
    kernel = head["kernel"][None, None]
    scores = jax.lax.conv_general_dilated(
        maps, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    scores = scores.mean(axis=(1, 2)) + head["bias"][None]
    pooled = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    assert jnp.abs(pooled).max() > 1e-3
    np.testing.assert_allclose(scores, pooled, atol=1e-5 * jnp.abs(pooled).max())


def test_square_images_at_the_networks_size_are_seen_as_by_the_pooled_form():
    one = network(resize=32)
    squares = Images(0)
    squares.pixels = [p[:40, :40] for p in IMAGES.pixels]
    squares.labels = IMAGES.labels
    found = found_by([one], Protocol("multi_scale", scales=(32,)), source=squares)
    plain = Plain(one.model, one.variables, one.statistics)
    expected = [
        plain.probabilities(single_crop(p, 32, 32)[0], mirrored=True) for p in squares.pixels
    ]
    compare(found, np.stack(expected))


@pytest.mark.slow  # tests/models/test_fully_convolutional.py compares the positions
def test_fully_connected_layers_are_applied_at_every_position():
    model = create_model("vgg11", num_classes=7, width=2, hidden_units=8)
    images = np.zeros((1, 224, 224, 3), np.float32)
    with jax.default_prng_impl("rbg"):
        variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images)
    variables = jax.tree.map(np.array, dict(variables))
    for layer in (*variables["params"]["hidden"].values(), variables["params"]["head"]):
        layer["kernel"] *= 10
    variables["params"]["head"]["kernel"] *= 100
    one = network(size=224)._replace(model=model, variables={**variables, "batch_stats": {}})
    wide = Images(1)
    plain = Plain(one.model, one.variables, one.statistics)
    plain._apply = jax.jit(
        functools.partial(model.apply, train=False, method="fully_convolutional")
    )
    views = functools.partial(multi_scale, scales=(224,))
    expected = np.stack([plain.probabilities(*views(pixels)) for pixels in wide.pixels])
    found = found_by([one], Protocol("multi_scale", scales=(224,)), source=wide)
    compare(found, expected, labels=wide.labels)


def test_few_shapes_are_compiled_and_as_many_as_are_said(monkeypatch):
    one = network()
    traced = []
    original = type(one.model).__call__

    def call(self, images, *, train):
        traced.append(images.shape)
        return original(self, images, train=train)

    many = Images(60)
    rng = np.random.default_rng(0)
    many.pixels = [p[: rng.integers(20, 60), : rng.integers(20, 70)] for p in many.pixels]
    monkeypatch.setattr(type(one.model), "__call__", call)
    protocol = Protocol("multi_scale", scales=(48,))
    reader = ViewReader(many, range(len(many)))
    replicas = Replicas(devices=jax.devices()[:2])
    _, shapes = predict([one], protocol, reader, replicas, batch_size=16)
    assert shapes == [len(traced)] == [len({shape[1:] for shape in traced})]
    for rows, height, width, _ in traced:
        assert {height, width} <= {48, 64, 96}
        assert min(height, width) == 48
        assert rows * height * width <= 16 * 32 * 32 + 2 * 2 * height * width


def test_default_scales_are_the_papers_in_proportion():
    of_224 = Protocol("multi_scale").describe(Preparation(224, 256, "bilinear"))
    assert of_224 == {
        "name": "multi_scale",
        "views": 10,
        "scales": [224, 256, 384, 480, 640],
        "interpolation": "bilinear",
    }
    of_112 = Protocol("multi_scale").describe(Preparation(112, 128, "bicubic"))
    assert of_112["scales"] == [112, 128, 192, 240, 320]


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (Protocol("ten_crop"), "images resized to 32 pixels have one crop of 32; resize them to m"),
        (Protocol(crop=40), "images resized to 32 pixels have no crop of 40"),
        (Protocol(resize=30), "images resized to 30 pixels have no crop of 32"),
        (Protocol("multi_scale", scales=(0,)), "a scale is 1 to 4096 pixels, and 0 is not"),
    ],
)
def test_crops_that_do_not_fit_are_refused(protocol, message):
    with pytest.raises(InputError, match=message):
        protocol.views(Preparation(32, 32, "bilinear"))


@pytest.mark.parametrize("name", ["prelu_net_a", "lenet5"])
def test_networks_without_a_fully_convolutional_form_are_refused(name):
    Protocol("ten_crop").check(create_model(name))
    with pytest.raises(InputError, match=r"a fully convolutional form, and \w+ has none; ten_"):
        Protocol("multi_scale").check(create_model(name))


def test_an_image_that_cannot_be_decoded_is_named():
    class Broken(Images):
        def __getitem__(self, index):
            example = super().__getitem__(index)
            return example._replace(image=b"no image") if index == 4 else example

    for protocol in (Protocol("ten_crop"), Protocol("multi_scale", scales=(32,))):
        with pytest.raises(InputError, match="image-4"):
            found_by([network()], protocol, source=Broken())
