"""Views are windows of the resized image."""

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import Example, View, decode_crop
from resnet_jax.evaluation.batches import buckets
from resnet_jax.evaluation.protocol import five_crops
from tests.data.pictures import photo
from tests.evaluation.plain import FILTERS, SIZES


def seen(view, pixels, interpolation):
    placement = view(*pixels.shape[:2])
    out = np.empty((placement.height, placement.width, 3), np.uint8)
    decode_crop(Example(pixels, 0, "a"), lambda h, w: view(h, w).box, out, interpolation)
    return out


def resized(pixels, side, interpolation):
    height, width, _ = pixels.shape
    size = side * width // min(height, width), side * height // min(height, width)
    return np.asarray(Image.fromarray(pixels).resize(size, FILTERS[interpolation])).astype(int)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", SIZES)
def test_views_are_parts_of_the_resized_image(size, interpolation):
    """But for rounding: Pillow rounds twice, and not at the same places."""
    pixels = photo(*size)
    image = resized(pixels, 40, interpolation)
    corners = [image[:30, :30], image[:30, -30:], image[-30:, :30], image[-30:, -30:]]
    centre, *views = five_crops(30, 40)
    assert centre == View(40, 30)
    for view, corner in zip(views, corners, strict=True):
        assert view(*size)[1:] == (30, 30)
        assert np.abs(seen(view, pixels, interpolation) - corner).max() <= 2
    found = seen(View(40), pixels, interpolation)
    top, left = (round((a - b) / 2) for a, b in zip(image.shape, found.shape[:2], strict=False))
    part = image[top : top + found.shape[0], left : left + found.shape[1]]
    assert np.abs(found - part).max() <= 2


@pytest.mark.parametrize(
    ("size", "side", "shape"),
    [
        ((480, 640), 224, (224, 288)),  # 298 wide
        ((480, 640), 640, (640, 832)),  # 853
        ((500, 375), 480, (640, 480)),  # 640
        ((100, 100), 256, (256, 256)),
        ((100, 10_000), 224, (224, 448)),  # 22400, and at most twice as long
        ((101, 100), 50, (50, 50)),  # 50, and not 32, which would be shorter than the shorter side
        ((150, 100), 50, (64, 50)),
    ],
)
def test_the_longer_side_is_a_multiple_of_32(size, side, shape):
    placement = View(side)(*size)
    assert (placement.height, placement.width) == shape
    box = placement.box
    assert 0 <= box.left < box.right <= size[1]
    assert 0 <= box.upper < box.lower <= size[0]
    assert box.left == pytest.approx(size[1] - box.right, abs=max(1, size[1] / shape[1]))


def test_shapes_have_a_bucket_each_with_every_view_once():
    views = [View(32), View(40, 32), View(40, 32, 0, 1), View(48)]
    sizes = np.array([(40, 60), (60, 40), (50, 50), (80, 120), (40, 60)], np.int32)
    found = buckets(views, sizes)
    shapes = [bucket.shape for bucket in found]
    assert shapes == [(48, 64), (64, 48), (48, 48), (32, 32)]
    members = [
        (int(example), view, bucket.shape)
        for bucket in found
        for example, view in zip(bucket.examples, bucket.views, strict=True)
    ]
    assert len(members) == len({member[:2] for member in members}) == 4 * 5
    for example, view, shape in members:
        placement = view(*sizes[example].tolist())
        assert (placement.height, placement.width) == shape
    for bucket in found:
        assert (np.diff(bucket.examples) >= 0).all()


def test_batches_shrink_as_views_grow():
    (bucket,) = buckets([View(40, 32)], np.ones((100, 2), np.int32))
    assert bucket.rows(32 * 32 * 10) == 10
    assert bucket.rows(32 * 32 - 1) == 1
    assert bucket.rows(10**9) == 100
