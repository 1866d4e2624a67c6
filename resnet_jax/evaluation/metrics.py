"""Metrics: numbers made of the predictions for a set of images.

A metric is a function from `Predictions` to a number. Once it stands in `METRICS`, it is in every
result, in the logs of training, and in TensorBoard.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32

MOST_CLASSES = 5
"""How many of the most probable classes of an image are kept."""


class Predictions(NamedTuple):
    """The most probable classes of images, a row for each image.

    Attributes:
      labels: The images' labels.
      losses: Minus the logarithm of the label's probability, in nats.
      classes: The five most probable classes (or all, of fewer), the most probable first; of equal
        ones the one with the lowest number.
      probabilities: Their probabilities.
    """

    labels: Int32[np.ndarray, " n"]
    losses: Float32[np.ndarray, " n"]
    classes: Int32[np.ndarray, "n k"]
    probabilities: Float32[np.ndarray, "n k"]

    def select(self, rows: slice | np.ndarray) -> "Predictions":
        """Returns the predictions for some of the images."""
        return Predictions(*(column[rows] for column in self))


def summarize(
    log_probabilities: Float32[Array, "n classes"], labels: Int32[Array, " n"]
) -> Predictions:
    """Returns the predictions of log-probabilities, as arrays of jax."""
    best, classes = lax.top_k(log_probabilities, min(MOST_CLASSES, log_probabilities.shape[-1]))
    of_label = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    return Predictions(labels, -of_label, classes, jnp.exp(best))  # pyrefly: ignore


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Returns the predictions of several sets of images as those of one."""
    return Predictions(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def top1_error(predictions: Predictions) -> float:
    """Returns the share of images whose label is not the most probable class, in percent."""
    return _percent(predictions.classes[:, 0] != predictions.labels)


def top5_error(predictions: Predictions) -> float:
    """Returns the share of images whose label is not among the five classes, in percent."""
    return _percent((predictions.classes != predictions.labels[:, None]).all(axis=1))


def loss(predictions: Predictions) -> float:
    """Returns the mean cross-entropy, in nats."""
    return float(predictions.losses.mean(dtype=np.float64))


METRICS: dict[str, Callable[[Predictions], float]] = {
    "top1_error": top1_error,
    "top5_error": top5_error,
    "loss": loss,
}


def measure(predictions: Predictions) -> dict[str, float]:
    """Returns `examples`, the number of images, and every metric, by name."""
    metrics = {name: metric(predictions) for name, metric in METRICS.items()}
    return {"examples": len(predictions.labels), **metrics}


class ClassErrors(NamedTuple):
    """The errors of the images of one class.

    Attributes:
      class_name: The class.
      examples: Number of its images.
      top1_error: Share of them that are taken for another class, in percent; None without images.
      top5_error: Share of them whose class is not among the five most probable, in percent.
      confused_with: The class that they are taken for most often; None where all are right.
      confused: How many are taken for that class.
    """

    class_name: str
    examples: int
    top1_error: float | None
    top5_error: float | None
    confused_with: str | None
    confused: int


def errors_of_classes(predictions: Predictions, class_names: Sequence[str]) -> list[ClassErrors]:
    """Returns the errors of each class, in the order of the classes.

    Args:
      predictions: The predictions for all images.
      class_names: The classes; a label is an index of this.
    """
    return [
        _of_class(predictions.select(predictions.labels == label), label, class_names)
        for label in range(len(class_names))
    ]


def _of_class(predictions: Predictions, label: int, class_names: Sequence[str]) -> ClassErrors:
    """Returns the errors of a class from the predictions for its images."""
    examples = len(predictions.labels)
    if not examples:
        return ClassErrors(class_names[label], 0, None, None, None, 0)
    counts = np.bincount(predictions.classes[:, 0], minlength=len(class_names))
    counts[label] = 0
    other = int(counts.argmax())
    return ClassErrors(
        class_names[label],
        examples,
        top1_error=round(top1_error(predictions), 4),
        top5_error=round(top5_error(predictions), 4),
        confused_with=class_names[other] if counts[other] else None,
        confused=int(counts[other]),
    )


def _percent(wrong: np.ndarray) -> float:
    return 100 * np.count_nonzero(wrong) / len(wrong)
