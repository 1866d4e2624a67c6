"""How networks can be evaluated."""

from typing import TypedDict

from etils import epath

from resnet_jax import parallel
from resnet_jax.evaluation.protocol import Protocol


class Options(TypedDict, total=False):
    """How networks are evaluated; each may be left out.

    Attributes:
      split: Split of the data; by default `data.eval_split` of the (first) network's config.
      batch_size: Images at a time, over all devices; by default the config's. Views that are larger
        than the network's images, or mirrored too, are as many fewer as their pixels are more.
      mapping: "pmap" or "shard_map"; by default the config's.
      protocol: Which views of an image are seen; by default the centre, as during training.
      precise_bn: On how many training images the batch statistics are measured anew, for this
        evaluation, as exact averages; see `precise_batch_stats`.
      predictions: A file for the five likeliest classes of each image: a line of JSON with `key`,
        `label`, `top5` and `probabilities`, in the order of the data.
      per_class: A file, `.csv` or `.json`, for the errors of each class.
      quiet: Draw no bar on the terminal.
    """

    split: str | None
    batch_size: int | None
    mapping: parallel.Mapping | None
    protocol: Protocol | None
    precise_bn: int | None
    predictions: epath.PathLike | None
    per_class: epath.PathLike | None
    quiet: bool
