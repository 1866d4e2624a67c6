"""The file of predictions."""

import json
from collections.abc import Sequence

from etils import epath

from resnet_jax.evaluation.outcomes import Outcomes
from resnet_jax.files import write_atomically


def write_predictions(
    path: epath.PathLike,
    outcomes: Outcomes,
    keys: Sequence[str],
    class_names: Sequence[str],
) -> None:
    """Writes a line of JSON for each image, in the order of the data set.

    It has the image's `key`, the name of its class as `label`, and the names of the five likeliest
    classes as `top5`, with their `probabilities`.

    Args:
      path: The file.
      outcomes: What was found of each image.
      keys: What the data set calls each.
      class_names: The classes; a label is an index of this.
    """
    lines = []
    for key, label, best, probabilities in zip(
        keys, outcomes.labels, outcomes.best, outcomes.probabilities.tolist(), strict=True
    ):
        line = {
            "key": key,
            "label": class_names[label],
            "top5": [class_names[number] for number in best],
            "probabilities": [float(f"{p:.6g}") for p in probabilities],
        }
        lines.append(f"{json.dumps(line)}\n")
    write_atomically(path, "".join(lines).encode())
