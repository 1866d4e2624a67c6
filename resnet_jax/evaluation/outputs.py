"""The files that an evaluation writes: predictions, and the errors of each class."""

import csv
import io
import json
from collections.abc import Sequence

from etils import epath

from resnet_jax import parallel
from resnet_jax.errors import InputError
from resnet_jax.evaluation.metrics import ClassErrors, Predictions, errors_of_classes
from resnet_jax.files import check_writable, write_atomically


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

    Args:
      path: The file.
      predictions: The predictions.
      keys: The key of each image in the data set.
      class_names: The classes; a label is an index of this.
    """
    columns = (keys, predictions.labels, predictions.classes, predictions.probabilities.tolist())
    lines = []
    for key, label, classes, probabilities in zip(*columns, strict=True):
        line = {
            "key": key,
            "label": class_names[label],
            "top5": [class_names[number] for number in classes],
            "probabilities": [float(f"{p:.6g}") for p in probabilities],
        }
        lines.append(f"{json.dumps(line)}\n")
    write_atomically(path, "".join(lines).encode())


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
