import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from resnet_jax.data import Draws, Statistics, augmentation, preprocess

N, H, W, C = 16, 12, 10, 3
PADDING = 4


def batch_of(name, n=N, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, H, W, C), dtype=np.uint8)
    batch = {"image": pixels, **augmentation(name, image_size=H)(Draws(seed, 0, n, slice(0, n)))}
    return {name: jnp.asarray(array) for name, array in batch.items()}


def statistics_of(kind):
    rng = np.random.default_rng(1)
    shape = (H, W, C) if kind == "pixel" else (C,)
    return Statistics(
        mean=rng.uniform(90, 130, shape).astype(np.float32),
        std=rng.uniform(50, 80, C).astype(np.float32),
    )


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
                out[i, y, x] = (pixel - mean) * (1 / statistics.std)
    return out


@pytest.mark.parametrize("kind", ["pixel", "channel"])
@pytest.mark.parametrize("name", ["none", "pad_crop", "pad_crop_flip"])
def test_equals_a_loop_exactly(name, kind):
    batch, statistics = batch_of(name), statistics_of(kind)
    images = jax.jit(lambda b, s: preprocess(b, s, padding=PADDING))(batch, statistics)
    assert images.dtype == jnp.float32
    np.testing.assert_array_equal(images, loop(batch, statistics))


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
    batch, statistics = batch_of("pad_crop_flip"), statistics_of("pixel")

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
    np.testing.assert_array_equal(images, loop(batch, statistics))


def test_statistics_are_a_pytree():
    assert [leaf.shape for leaf in jax.tree.leaves(statistics_of("pixel"))] == [(H, W, C), (C,)]
