"""Data: sources of examples, their order, augmentation, and batches.

A `Source` has examples by index, encoded; an `ImageSet` decodes, crops and resizes them to one
size. `Order` gives the examples of a step's batch and `Draws` their random numbers, both as pure
functions of the seed and the step. `train_batches` and `eval_batches` make batches of uint8 on the
host, and `preprocess` does the arithmetic on the device.
"""

from resnet_jax.data.augment import Augmentation, augmentation, preprocess
from resnet_jax.data.bad_records import BadRecords, read_ledger
from resnet_jax.data.batches import Batch, eval_batches, train_batches
from resnet_jax.data.crops import Box, InceptionCrop, ScaleJitter, View
from resnet_jax.data.decoding.decode import Interpolation, decode_crop
from resnet_jax.data.draws import Draws, Order, Stream
from resnet_jax.data.images import DecodedImages, ImageSet, MemoryImages
from resnet_jax.data.load import load_images, load_source
from resnet_jax.data.prefetch import prefetch
from resnet_jax.data.sources import Example, Source
from resnet_jax.data.sources.digits import Digits
from resnet_jax.data.sources.folder import FolderSplit, folder_splits
from resnet_jax.data.sources.splits import select
from resnet_jax.data.statistics import (
    MeanOf,
    Statistics,
    StdOf,
    measure_statistics,
    statistics_template,
)

__all__ = [
    "Augmentation",
    "BadRecords",
    "Batch",
    "Box",
    "DecodedImages",
    "Digits",
    "Draws",
    "Example",
    "FolderSplit",
    "ImageSet",
    "InceptionCrop",
    "Interpolation",
    "MeanOf",
    "MemoryImages",
    "Order",
    "ScaleJitter",
    "Source",
    "Statistics",
    "StdOf",
    "Stream",
    "View",
    "augmentation",
    "decode_crop",
    "eval_batches",
    "folder_splits",
    "load_images",
    "load_source",
    "measure_statistics",
    "prefetch",
    "preprocess",
    "read_ledger",
    "select",
    "statistics_template",
    "train_batches",
]
