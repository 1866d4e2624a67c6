"""Data: sources of examples, their order, augmentation, and batches.

A `Source` has examples by index and an `ImageSet` images of one size; `Order` says which examples
make the batch of a step and `Draws` gives their random numbers, both as pure functions of the seed
and the step; `train_batches` and `eval_batches` put them together on the host as uint8, and
`preprocess` does the arithmetic on the device.
"""

from resnet_jax.data.augment import Augmentation, augmentation
from resnet_jax.data.batches import Batch, eval_batches, train_batches
from resnet_jax.data.device import Statistics, preprocess
from resnet_jax.data.digits import Digits
from resnet_jax.data.draws import Draws
from resnet_jax.data.images import ImageSet, MemoryImages
from resnet_jax.data.load import load_images
from resnet_jax.data.measure import measure_statistics, statistics_template
from resnet_jax.data.order import Order
from resnet_jax.data.prefetch import Prefetch, prefetch
from resnet_jax.data.random_bits import Stream
from resnet_jax.data.source import Example, Source

__all__ = [
    "Augmentation",
    "Batch",
    "Digits",
    "Draws",
    "Example",
    "ImageSet",
    "MemoryImages",
    "Order",
    "Prefetch",
    "Source",
    "Statistics",
    "Stream",
    "augmentation",
    "eval_batches",
    "load_images",
    "measure_statistics",
    "prefetch",
    "preprocess",
    "statistics_template",
    "train_batches",
]
