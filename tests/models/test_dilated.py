"""Networks whose later stages dilate instead of losing resolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import BottleneckBlock, InputError, ResidualBlock, ResNet, create_model, features
from tests.models.shapes import shapes, sizes
from tests.models.torch_reference import QUICK, random_variables


@pytest.mark.parametrize(
    ("output_stride", "sides"),
    [(8, (56, 28, 28, 28)), (16, (56, 28, 14, 14)), (None, (56, 28, 14, 7))],
)
def test_stages_keep_the_resolution_and_the_variables(output_stride, sides):
    short = {"stage_sizes": (1, 1, 2, 1)}
    model = create_model("resnet50", **short, output_stride=output_stride)
    found = sizes(model, 224)
    assert [found[f"stage{i}"][:2] for i in (1, 2, 3, 4)] == [(side, side) for side in sides]
    assert shapes(model, 224) == shapes(create_model("resnet50", **short), 224)


@pytest.mark.parametrize(
    ("block", "options", "pixels", "output_stride", "steps"),
    [
        (ResidualBlock, {"shortcut": "A"}, 23, 1, (1, 2, 4)),
        (BottleneckBlock, {"stride_on": "1x1"}, 20, 2, (1, 1, 2)),
        (BottleneckBlock, {"stride_on": "3x3", "remat": True}, 23, 1, (1, 2, 4)),
    ],
)
def test_agrees_with_the_network_without_dilation_where_that_has_pixels(
    block, options, pixels, output_stride, steps
):
    model = ResNet((1, 2, 2), block=block, width=4, num_classes=3, stem="cifar", **options)
    variables = random_variables(model, pixels)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, pixels, pixels, 3)), jnp.float32)
    names = ("stage1", "stage2", "stage3")

    @functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
    def outputs(model):
        return features(model, variables, images, names)

    expected = outputs(model)
    found = outputs(model.copy(output_stride=output_stride))
    for name, step in zip(names, steps, strict=True):
        a, b = found[name][:, ::step, ::step], expected[name]
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize(
    ("stem", "output_stride", "choices"),
    [
        ("imagenet", 64, "4, 8, 16, 32, None"),
        ("imagenet", 12, "4, 8, 16, 32, None"),
        ("imagenet", 2, "4, 8, 16, 32, None"),
        ("cifar", 16, "1, 2, 4, 8, None"),
        ("imagenet", "8", "4, 8, 16, 32, None"),
    ],
)
def test_an_output_stride_that_cannot_be_is_refused(stem, output_stride, choices):
    with pytest.raises(
        InputError, match=f"output_stride is {output_stride!r}; it must be one of {choices}"
    ):
        ResNet((1, 1, 1, 1), stem=stem, output_stride=output_stride)
