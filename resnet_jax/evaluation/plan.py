"""Which views are shown together: those of one shape."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from resnet_jax.evaluation.views import View


class Bucket(NamedTuple):
    """Views of one shape, for which one program is compiled.

    Attributes:
      shape: Height and width of the views, in pixels.
      examples: Whose they are, in order.
      views: Which of the protocol's views of it each is.
    """

    shape: tuple[int, int]
    examples: Int32[np.ndarray, " n"]
    views: Int32[np.ndarray, " n"]

    def rows(self, pixels: int, copies: int) -> int:
        """Returns how many views fit into a batch; at least one, and no more than there are.

        Args:
          pixels: Pixels that a batch has at most.
          copies: How often each view is in it.
        """
        height, width = self.shape
        return min(max(1, pixels // (copies * height * width)), len(self.examples))


def plan(views: Sequence[View], sizes: Int32[np.ndarray, "examples 2"]) -> list[Bucket]:
    """Returns every view of every example in exactly one bucket.

    The largest shapes come first: what does not fit into memory fails at once.

    Args:
      views: The views of an image.
      sizes: Height and width of each image; of no account where the views all have one shape.
    """
    members: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for example, (height, width) in enumerate(sizes.tolist()):
        for view, seen in enumerate(views):
            shape = seen.shape
            if shape is None:
                placement = seen(height, width)
                shape = (placement.height, placement.width)
            members.setdefault(shape, []).append((example, view))
    buckets = []
    for shape in sorted(members, key=lambda shape: (-shape[0] * shape[1], shape)):
        examples, numbers = np.array(members[shape], np.int32).T
        buckets.append(Bucket(shape, examples, numbers))
    return buckets
