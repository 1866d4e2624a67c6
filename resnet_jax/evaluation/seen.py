"""What networks say together of each image: the mean of their probabilities."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from resnet_jax import parallel
from resnet_jax.data import Source
from resnet_jax.evaluation.network import Network
from resnet_jax.evaluation.outcomes import Outcomes
from resnet_jax.evaluation.pictures import Pictures
from resnet_jax.evaluation.protocol import Shown
from resnet_jax.evaluation.scores import score
from resnet_jax.parallel import Replicas


class Seen(NamedTuple):
    """What networks say together of the images of a source.

    Attributes:
      outcomes: What is found of each image, in the order of the source.
      keys: What the source calls each.
      shapes: For each network for how many shapes of views this process compiled a program.
    """

    outcomes: Outcomes
    keys: list[str]
    shapes: list[int]


def see(
    networks: Sequence[Network],
    shown: Sequence[Shown],
    source: Source,
    replicas: Replicas,
    *,
    batch_size: int,
    workers: int | None = None,
    quiet: bool = True,
) -> Seen:
    """Returns what networks say together of the images of a source, on every process.

    A process has a share of the images, and nothing to do with the others until the end.

    Args:
      networks: The networks, which know the same classes.
      shown: How images are shown to each.
      source: The images.
      replicas: The devices.
      batch_size: As for `score`, over all devices.
      workers: Threads that decode; by default as many as there are cores.
      quiet: Draw no bar on the terminal.

    Raises:
      InputError: An image cannot be decoded; the message names it.
    """
    pictures = Pictures(source, parallel.share(len(source)), workers=workers)
    rows = replicas.rows(replicas.round_up(batch_size))
    found = []
    with parallel.together():
        for network, how in zip(networks, shown, strict=True):
            scores = score(
                network,
                how,
                pictures,
                replicas.here(),
                batch_size=rows.stop - rows.start,
                quiet=quiet or not parallel.is_primary(),
            )
            found.append(scores)
    with np.errstate(invalid="ignore"):  # what is no number is refused at the end
        together = np.logaddexp.reduce([scores.log_probabilities for scores in found])
    together -= np.float32(np.log(len(found)))
    outcomes = Outcomes.of(together, pictures.labels)
    examples = len(source)
    return Seen(
        Outcomes(*(parallel.gather(rows, examples) for rows in outcomes)),
        _gather_texts(pictures.keys, examples),
        [scores.shapes for scores in found],
    )


def _gather_texts(texts: list[str], examples: int) -> list[str]:
    """Returns the texts of all processes: as numbers, which is what can be gathered."""
    encoded = [text.encode(errors="surrogateescape") for text in texts]
    lengths = parallel.gather(np.array([len(text) for text in encoded], np.int32), examples)
    bytes_ = np.zeros((len(encoded), int(lengths.max())), np.uint8)
    for row, text in zip(bytes_, encoded, strict=True):
        row[: len(text)] = np.frombuffer(text, np.uint8)
    rows = parallel.gather(bytes_, examples)
    return [
        row[:length].tobytes().decode(errors="surrogateescape")
        for row, length in zip(rows, lengths, strict=True)
    ]
