"""The protocols in numpy and loops, one view of one image at a time."""

import functools

import jax
import numpy as np
from PIL import Image

from resnet_jax import ResidualBlock, ResNet
from resnet_jax.data import Box, Example, Statistics, decode_crop
from tests.data.pictures import encode, photo

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

SIZES = [(60, 80), (64, 64), (80, 60), (50, 130), (64, 64), (61, 79), (90, 70), (64, 128), (40, 40)]


class Images:
    """Photos of many sizes, as PNG, as pixels, and one in grey."""

    class_names = tuple("abcdefg")

    def __init__(self, count=9):
        self.pixels = [photo(*SIZES[i % len(SIZES)], seed=i) for i in range(count)]
        self.labels = [3 * i % 7 for i in range(count)]

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        pixels = self.pixels[index]
        image = encode(pixels) if index % 2 else pixels
        return Example(image, self.labels[index], f"image-{index}")


def small_resnet(classes=7, width=4, channels=3, seed=0, **fields):
    """Returns a network with a head that makes clear choices, and its variables."""
    fields = {"block": ResidualBlock, "stem": "imagenet", **fields}
    model = ResNet((1,), width=width, num_classes=classes, **fields)
    images = np.zeros((1, 32, 32, channels), np.float32)
    with jax.default_prng_impl("rbg"):
        variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(lambda x: np.array(x), variables)
    variables["params"]["head"]["kernel"] *= 200
    variables["batch_stats"] = jax.tree.map(
        lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32), variables["batch_stats"]
    )
    return model, variables


def mean_image(side=32, channels=3):
    """Returns statistics with a smooth mean image."""
    mean = photo(side, side, seed=99)[..., :channels].astype(np.float32) / 2
    return Statistics(mean=mean, std=np.array([50, 60, 70][:channels], np.float32))


def sides(pixels, shorter):
    """Returns the height and width of an image after its shorter side was resized."""
    height, width, _ = pixels.shape
    return shorter * height // min(height, width), shorter * width // min(height, width)


def window(pixels, shorter, top, left, height, width, interpolation="bilinear"):
    """Returns a window of the resized image, in whole pixels of that."""
    tall, wide = sides(pixels, shorter)
    across, down = pixels.shape[1] / wide, pixels.shape[0] / tall
    right, lower = min((left + width) * across, pixels.shape[1]), (top + height) * down
    box = Box(left * across, top * down, right, min(lower, pixels.shape[0]))
    # Where Pillow would round is a matter of the last bit; `test_views` compares with it.
    out = np.empty((height, width, 3), np.uint8)
    decode_crop(Example(pixels, 0, "a"), lambda height, width: box, out, interpolation, exact=True)
    return out


def single_crop(pixels, size, resize, interpolation="bilinear"):
    tall, wide = sides(pixels, resize)
    top, left = round((tall - size) / 2), round((wide - size) / 2)
    return [window(pixels, resize, top, left, size, size, interpolation)], False


def ten_crops(pixels, size, resize, interpolation="bilinear"):
    tall, wide = sides(pixels, resize)
    crops, _ = single_crop(pixels, size, resize, interpolation)
    for top in (0, tall - size):
        for left in (0, wide - size):
            crops.append(window(pixels, resize, top, left, size, size, interpolation))
    return crops, True


def multi_scale(pixels, scales, interpolation="bilinear"):
    views = []
    for scale in scales:
        tall, wide = sides(pixels, scale)
        height, width = (max(scale, min(side, 2 * scale) // 32 * 32) for side in (tall, wide))
        top, left = round((tall - height) / 2), round((wide - width) / 2)
        views.append(window(pixels, scale, top, left, height, width, interpolation))
    return views, True


class Plain:
    """A network, applied to one image at a time."""

    def __init__(self, model, variables, statistics):
        self._apply = jax.jit(functools.partial(model.apply, train=False))
        self._variables = variables
        self._statistics = statistics

    def probabilities(self, views, mirrored):
        """Returns the mean over an image's views and, if mirrored, their mirror images."""
        found = []
        for view in views:
            image = (view.astype(np.float32) - self._mean(view.shape)) / self._statistics.std
            for seen in [image, image[:, ::-1]] if mirrored else [image]:
                logits = np.asarray(self._apply(self._variables, seen[None])[0], np.float64)
                exponentials = np.exp(logits - logits.max())
                found.append(exponentials / exponentials.sum())
        return np.mean(found, axis=0)

    def _mean(self, shape):
        mean = self._statistics.mean
        if mean.ndim == 1 or mean.shape == shape:
            return mean
        channels = [Image.fromarray(channel) for channel in np.moveaxis(mean, 2, 0)]
        stretched = [c.resize(shape[1::-1], Image.Resampling.BILINEAR) for c in channels]
        return np.stack([np.asarray(c) for c in stretched], axis=2)
