"""What a network sees of a data set, as pictures that can be looked at."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, UInt8

from resnet_jax.data.augment import Augmentation
from resnet_jax.data.batches import train_batches
from resnet_jax.data.device import Statistics, preprocess
from resnet_jax.data.images import ImageSet
from resnet_jax.data.order import Order
from resnet_jax.errors import InputError

_CUT_OFF = 0.005
"""Share of the values that may become black, and white."""


class Panel(NamedTuple):
    """Pictures that belong together.

    Attributes:
      title: What they are.
      pixels: The pictures.
      captions: What is written under each, the name of its class.
    """

    title: str
    pixels: UInt8[np.ndarray, "n h w c"]
    captions: tuple[str, ...]


def training_panels(
    images: ImageSet,
    augmentation: Augmentation,
    statistics: Statistics,
    *,
    batch_size: int,
    seed: int,
    step: int,
    count: int,
) -> tuple[Panel, Panel]:
    """Returns the first images of a step's batch, and how the same ones look in evaluation.

    Where more are wanted than a batch has, those of the next steps follow.

    Args:
      images: The training images.
      augmentation: How they are varied.
      statistics: What the network's input is normalised with.
      batch_size: Number of examples of the global batch.
      seed: The run's seed.
      step: The first step, from 0.
      count: How many images, at least 1.

    Raises:
      InputError: The step is negative, there are no images, or one cannot be decoded.
    """
    if step < 0:
        raise InputError(f"steps are counted from 0, and {step} is none")
    last = step + (count - 1) // batch_size
    batches = train_batches(
        images,
        augmentation,
        batch_size=batch_size,
        seed=seed,
        start=step,
        stop=last + 1,
        rows=slice(0, min(count, batch_size)),
    )
    inputs, labels = [], []
    for batch in batches:
        labels.append(batch["label"])
        inputs.append(preprocess(jax.device_put(batch), statistics, padding=augmentation.padding))
    captions = _captions(images, np.concatenate(labels)[:count])
    steps = f"step {step}" if step == last else f"steps {step} to {last}"

    order = Order(len(images), batch_size, seed)
    indices = np.concatenate([order.indices(one) for one in range(step, last + 1)])[:count]
    pixels, _ = images.read(indices)
    seen, evaluated = _pictures(
        statistics, jnp.concatenate(inputs)[:count], _in_evaluation(pixels, statistics)
    )
    return (
        Panel(f"in training, {steps}", seen, captions),
        Panel("the same images in evaluation", evaluated, captions),
    )


def evaluation_panel(images: ImageSet, statistics: Statistics, *, count: int) -> Panel:
    """Returns the first images of a set in their view for evaluation.

    Args:
      images: The images.
      statistics: What the network's input is normalised with.
      count: How many at most.

    Raises:
      InputError: An image cannot be decoded.
    """
    pixels, labels = images.read(np.arange(min(count, len(images))))
    (seen,) = _pictures(statistics, _in_evaluation(pixels, statistics))
    return Panel("in evaluation", seen, _captions(images, labels))


def _captions(images: ImageSet, labels: Int32[np.ndarray, "n"]) -> tuple[str, ...]:
    return tuple(images.class_names[label] for label in labels)


def _in_evaluation(pixels: UInt8[np.ndarray, "n h w c"], statistics: Statistics) -> Array:
    return preprocess({"image": jnp.asarray(pixels)}, statistics, padding=0)


def _pictures(
    statistics: Statistics, *inputs: Float32[Array, "n h w c"]
) -> list[UInt8[np.ndarray, "n h w c"]]:
    """Returns the network's inputs in colours.

    They are multiplied with the standard deviation, and the mean colour is added; so a mean image
    that was subtracted is missing but for its colour, as it is to the network. Where that leaves
    the range from black to white, contrast is reduced, of all alike.
    """
    mean = np.asarray(statistics.mean, np.float64)
    colour = mean.reshape(-1, mean.shape[-1]).mean(axis=0)
    shown = [np.asarray(one, np.float64) * np.asarray(statistics.std) + colour for one in inputs]
    values = np.concatenate([one.ravel() for one in shown])
    black, white = np.quantile(values, [_CUT_OFF, 1 - _CUT_OFF])
    black, white = min(black, 0.0), max(white, 255.0)
    return [
        np.rint(np.clip(255 * (one - black) / (white - black), 0, 255)).astype(np.uint8)
        for one in shown
    ]
