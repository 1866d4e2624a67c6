"""The errors of each class."""

import csv
import io
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.evaluation.outcomes import Outcomes
from resnet_jax.files import write_atomically


class ClassErrors(NamedTuple):
    """The errors of the images of one class.

    Attributes:
      class_name: The class.
      examples: Number of its images.
      top1_error: Share of them that are taken for another class, in percent; None without images.
      top5_error: Share of them whose class is not among the five likeliest, in percent.
      confused_with: The class that those are taken for most often; None where there are none.
      confused: How many of them.
    """

    class_name: str
    examples: int
    top1_error: float | None
    top5_error: float | None
    confused_with: str | None
    confused: int


def errors_of_classes(outcomes: Outcomes, class_names: Sequence[str]) -> list[ClassErrors]:
    """Returns the errors of each class, in the order of the classes.

    Args:
      outcomes: What was found of each image.
      class_names: The classes; a label is an index of this.
    """
    return [_of_class(outcomes, label, class_names) for label in range(len(class_names))]


def write_per_class(path: epath.PathLike, outcomes: Outcomes, class_names: Sequence[str]) -> None:
    """Writes the errors of each class, a row for each, as `path` ends: `.csv` or `.json`."""
    rows = [errors._asdict() for errors in errors_of_classes(outcomes, class_names)]
    if _form(path) == ".json":
        write_atomically(path, f"{json.dumps(rows, indent=1)}\n".encode())
        return
    text = io.StringIO()
    table = csv.DictWriter(text, ClassErrors._fields, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomically(path, text.getvalue().encode(errors="backslashreplace"))


def check_per_class(path: epath.PathLike) -> None:
    """Refuses a file whose form cannot be told.

    Raises:
      InputError: It ends neither in `.csv` nor in `.json`.
    """
    if _form(path) not in (".csv", ".json"):
        raise InputError(f"the errors of the classes are a .csv or a .json file, and {path} is not")


def _form(path: epath.PathLike) -> str:
    return epath.Path(path).suffix.lower()


def _of_class(outcomes: Outcomes, label: int, class_names: Sequence[str]) -> ClassErrors:
    here = np.flatnonzero(outcomes.labels == label)
    if not len(here):
        return ClassErrors(class_names[label], 0, None, None, None, 0)
    wrong = outcomes.top1_wrong()[here]
    counts = np.bincount(outcomes.best[here, 0][wrong], minlength=len(class_names))
    other = int(counts.argmax())
    return ClassErrors(
        class_names[label],
        len(here),
        top1_error=round(100 * float(wrong.mean()), 4),
        top5_error=round(100 * float(outcomes.top5_wrong()[here].mean()), 4),
        confused_with=class_names[other] if wrong.any() else None,
        confused=int(counts[other]),
    )
