"""Metrics: numbers made of the predictions for a set of images, and the files of both.

A metric is a function from `Predictions` to a number. Once it stands in `METRICS`, it is in every
result, in the logs of training, and in TensorBoard.
"""

import csv
import io
import itertools
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import lax
from jaxtyping import Array, Float32, Int32

from resnet_jax import parallel
from resnet_jax.errors import InputError
from resnet_jax.files import check_writable, write_atomically


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
    best, classes = lax.top_k(log_probabilities, min(5, log_probabilities.shape[-1]))
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
    """Returns the errors of each class; a label is an index of `class_names`."""

    def errors(label: int, name: str) -> ClassErrors:
        own = predictions.select(predictions.labels == label)
        if not len(own.labels):
            return ClassErrors(name, 0, None, None, None, 0)
        counts = np.bincount(own.classes[:, 0], minlength=len(class_names))
        counts[label] = 0
        other = int(counts.argmax())
        return ClassErrors(
            name,
            len(own.labels),
            top1_error=round(top1_error(own), 4),
            top5_error=round(top5_error(own), 4),
            confused_with=class_names[other] if counts[other] else None,
            confused=int(counts[other]),
        )

    return list(itertools.starmap(errors, enumerate(class_names)))


def _percent(wrong: np.ndarray) -> float:
    return 100 * np.count_nonzero(wrong) / len(wrong)


def check_outputs(
    predictions: epath.PathLike | None, per_class: epath.PathLike | None, *others: epath.Path
) -> None:
    """Refuses, before the work, files that could not be written after it; makes their folders.

    Raises:
      InputError: The first two are one file, one is a folder or cannot be written, or the name of
        `per_class` does not say its form.
    """
    if per_class is not None and _suffix(per_class) not in (".csv", ".json"):
        raise InputError(
            f"the errors of the classes are a .csv or a .json file, and {per_class} is not"
        )
    paths = [epath.Path(path) for path in (predictions, per_class) if path is not None]
    if len(set(paths)) < len(paths):
        raise InputError(f"{predictions} cannot have both predictions and the errors of classes")
    for path in (*others, *paths):
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the name of a file")
        if parallel.is_primary():
            check_writable(path)


def write_predictions(
    path: epath.PathLike,
    predictions: Predictions,
    keys: Sequence[str],
    class_names: Sequence[str],
) -> None:
    """Writes a line of JSON for each image, in the order of the data set.

    It has the image's `key`, the name of its class as `label`, and the names of the five most
    probable classes as `top5`, with their `probabilities`.
    """
    columns = (keys, predictions.labels, predictions.classes, predictions.probabilities.tolist())
    lines = [
        {
            "key": key,
            "label": class_names[label],
            "top5": [class_names[number] for number in classes],
            "probabilities": [float(f"{p:.6g}") for p in probabilities],
        }
        for key, label, classes, probabilities in zip(*columns, strict=True)
    ]
    write_atomically(path, "".join(f"{json.dumps(line)}\n" for line in lines).encode())


def write_per_class(
    path: epath.PathLike, predictions: Predictions, class_names: Sequence[str]
) -> None:
    """Writes the errors of each class, a row for each, as the name ends: `.csv` or `.json`."""
    rows = [errors._asdict() for errors in errors_of_classes(predictions, class_names)]
    if _suffix(path) == ".json":
        write_atomically(path, f"{json.dumps(rows, indent=1)}\n".encode())
        return
    text = io.StringIO()
    table = csv.DictWriter(text, ClassErrors._fields, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomically(path, text.getvalue().encode(errors="backslashreplace"))


def _suffix(path: epath.PathLike) -> str:
    return epath.Path(path).suffix.lower()
