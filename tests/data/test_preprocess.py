import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from resnet_jax.data import Draws, Statistics, augmentation, preprocess
from resnet_jax.data.statistics import IMAGENET_COMPONENTS

N, H, W, C = 16, 12, 10, 3
PADDING = 4


def batch_of(name, n=N, seed=0, color_std=0.0):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, H, W, C), dtype=np.uint8)
    policy = augmentation(name, image_size=H, color_std=color_std)
    batch = {"image": pixels, **policy(Draws(seed, 0, n, slice(0, n)))}
    return {name: jnp.asarray(array) for name, array in batch.items()}


def statistics_of(kind):
    rng = np.random.default_rng(1)
    shape = (H, W, C) if kind == "pixel" else (C,)
    return Statistics(
        mean=rng.uniform(90, 130, shape).astype(np.float32),
        std=rng.uniform(50, 80, C).astype(np.float32),
        color=IMAGENET_COMPONENTS.astype(np.float32),
    )


def color_of(coefficients, statistics):
    """What is added to red, green and blue, in the order of the paper's formula."""
    total = np.zeros(C)
    for component, coefficient in zip(statistics.color.T, coefficients, strict=True):
        total += np.float64(component) * coefficient
    return total.astype(np.float32)


def loop(batch, statistics):
    """The same, one pixel at a time."""
    batch = {name: np.asarray(array) for name, array in batch.items()}
    n, height, width, _ = batch["image"].shape
    out = np.zeros(batch["image"].shape, np.float32)
    for i in range(n):
        top, left = batch["crop_offset"][i] if "crop_offset" in batch else (PADDING, PADDING)
        for y in range(height):
            for x in range(width):
                row, column = y + top - PADDING, x + left - PADDING
                if not (0 <= row < height and 0 <= column < width):
                    continue
                if "flip" in batch and batch["flip"][i]:
                    column = width - 1 - column
                mean = statistics.mean
                mean = mean[row, column] if mean.ndim == 3 else mean
                pixel = batch["image"][i, row, column].astype(np.float32)
                if "color" in batch:
                    pixel = pixel + color_of(batch["color"][i], statistics)
                out[i, y, x] = (pixel - mean) * (1 / statistics.std)
    return out


@pytest.mark.parametrize("kind", ["pixel", "channel"])
@pytest.mark.parametrize("name", ["none", "pad_crop", "pad_crop_flip"])
def test_equals_a_loop_exactly(name, kind):
    batch, statistics = batch_of(name), statistics_of(kind)
    images = jax.jit(lambda b, s: preprocess(b, s, padding=PADDING))(batch, statistics)
    assert images.dtype == jnp.float32
    np.testing.assert_array_equal(images, loop(batch, statistics))


@pytest.mark.parametrize("kind", ["pixel", "channel"])
@pytest.mark.parametrize("name", ["none", "pad_crop_flip"])
def test_colours_equal_the_loop(name, kind):
    # Ten times what is usual, so that a wrong sign or a transposed matrix is seen.
    batch, statistics = batch_of(name, color_std=1.0), statistics_of(kind)
    images = jax.jit(lambda b, s: preprocess(b, s, padding=PADDING))(batch, statistics)
    np.testing.assert_allclose(images, loop(batch, statistics), rtol=2e-6, atol=2e-6)
    del batch["color"]
    assert np.abs(images - loop(batch, statistics)).max() > 0.5


def test_a_coefficient_adds_its_component_in_units_of_the_pixels():
    batch = {
        "image": jnp.full((3, 2, 2, C), 100, jnp.uint8),
        "color": jnp.eye(3, dtype=jnp.float32) / 10,
        "crop_offset": jnp.array([[0, 0]] * 3, jnp.int32),
    }
    statistics = Statistics(
        mean=np.full(C, 100, np.float32),
        std=np.array([1, 10, 100], np.float32),
        color=IMAGENET_COMPONENTS.astype(np.float32),
    )
    images = np.asarray(preprocess(batch, statistics, padding=1))
    # The first eigenvalue is 0.2175, and its vector nearly grey: 5.5 of 255, to each channel.
    added = images[:, 1, 1] * statistics.std
    np.testing.assert_allclose(added[0], [-3.15, -3.22, -3.24], atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(added, axis=1), [5.55, 0.479, 0.115], rtol=0.01)
    # The padding, which stands for the mean, has no colour.
    np.testing.assert_array_equal(images[:, 0], 0)
    np.testing.assert_array_equal(images[:, :, 0], 0)


def test_colours_without_components_are_an_error():
    statistics = statistics_of("channel")._replace(color=None)
    with pytest.raises(ValueError, match="no components in the statistics"):
        preprocess(batch_of("none", color_std=0.1), statistics, padding=0)


def test_flip_without_crop():
    batch = batch_of("pad_crop_flip")
    del batch["crop_offset"]
    statistics = statistics_of("pixel")
    images = preprocess(batch, statistics, padding=PADDING)
    np.testing.assert_array_equal(images, loop(batch, statistics))


def test_padding_is_zero_after_the_mean():
    batch = {
        "image": jnp.full((1, H, W, C), 200, jnp.uint8),
        "crop_offset": jnp.array([[0, 2 * PADDING]], jnp.int32),
    }
    statistics = Statistics(mean=np.full(C, 150, np.float32), std=np.full(C, 50, np.float32))
    image = np.asarray(preprocess(batch, statistics, padding=PADDING))[0]
    np.testing.assert_array_equal(image[:PADDING], 0)
    np.testing.assert_array_equal(image[:, W - PADDING :], 0)
    np.testing.assert_array_equal(image[PADDING:, : W - PADDING], 1)


@pytest.mark.parametrize("mapping", ["pmap", "shard_map"])
def test_is_the_same_on_every_number_of_devices(mapping):
    batch, statistics = batch_of("pad_crop_flip", color_std=0.1), statistics_of("pixel")

    def one_replica(batch, statistics):
        return preprocess(batch, statistics, padding=PADDING)

    if mapping == "pmap":
        split = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), batch)
        images = jax.pmap(one_replica, in_axes=(0, None))(split, statistics)
        images = images.reshape(batch["image"].shape)
    else:
        mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
        images = jax.jit(
            jax.shard_map(one_replica, mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"))
        )(batch, statistics)
    alone = jax.jit(one_replica)(batch, statistics)
    np.testing.assert_array_equal(images, alone)


def test_statistics_are_a_pytree():
    shapes = [leaf.shape for leaf in jax.tree.leaves(statistics_of("pixel"))]
    assert shapes == [(H, W, C), (C,), (C, C)]
    without = statistics_of("channel")._replace(color=None)
    assert [leaf.shape for leaf in jax.tree.leaves(without)] == [(C,), (C,)]
