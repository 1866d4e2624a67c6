"""What is found of each image: how likely its label is, and which classes are likeliest."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from resnet_jax.evaluation.single_crop import Errors

BEST = 5
"""How many of the likeliest classes are kept."""


class Outcomes(NamedTuple):
    """What is found of images, a row for each.

    Attributes:
      labels: Their labels.
      losses: Minus the logarithm of the label's probability, in nats.
      best: The likeliest classes, the likeliest first; of equals that of the least number.
      probabilities: Of those.
    """

    labels: Int32[np.ndarray, " n"]
    losses: Float32[np.ndarray, " n"]
    best: Int32[np.ndarray, "n k"]
    probabilities: Float32[np.ndarray, "n k"]

    @classmethod
    def of(
        cls,
        log_probabilities: Float32[np.ndarray, "n classes"],
        labels: Int32[np.ndarray, " n"],
    ) -> "Outcomes":
        """Keeps of all probabilities what counts."""
        best = np.argsort(-log_probabilities, axis=1, kind="stable")[:, :BEST].astype(np.int32)
        return cls(
            labels,
            losses=-np.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0],
            best=best,
            probabilities=np.exp(np.take_along_axis(log_probabilities, best, axis=1)),
        )

    def top1_wrong(self) -> np.ndarray:
        """Returns for each image, bool [n], whether the likeliest class is not its label."""
        return self.best[:, 0] != self.labels

    def top5_wrong(self) -> np.ndarray:
        """Returns for each image, bool [n], whether its label is not among the five likeliest."""
        return (self.best != self.labels[:, None]).all(axis=1)

    def errors(self) -> Errors:
        """Returns the errors over all images."""
        return Errors(
            examples=len(self.labels),
            top1_error=100 * float(self.top1_wrong().mean()),
            top5_error=100 * float(self.top5_wrong().mean()),
            loss=float(self.losses.mean(dtype=np.float64)),
        )
