"""What a run tells: its logs, its progress on the terminal, its curves."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Self

from resnet_jax.checkpoints import Layout
from resnet_jax.training.curves import draw_curves
from resnet_jax.training.metrics import MetricsLog
from resnet_jax.training.progress import Progress
from resnet_jax.training.tensorboard import TensorBoard


class Journal:
    """Everything that is written while a run goes on, but for its checkpoints.

    On processes other than the primary one there is no workdir to write to, and it writes nothing.
    """

    def __init__(
        self,
        layout: Layout | None,
        *,
        title: str,
        start_step: int,
        total_steps: int,
        batch_size: int,
    ) -> None:
        """Opens the logs; lines of steps after `start_step` are dropped, as these come again."""
        self._layout = layout
        self._title = title
        if layout is not None:
            self._log = MetricsLog(layout.metrics, resume_step=start_step)
            self._tensorboard = TensorBoard(layout.tensorboard, resume_step=start_step)
            self._progress = Progress(total_steps, start_step, batch_size)

    def note(self, line: str) -> None:
        """Says a line on the terminal."""
        if self._layout is not None:
            self._progress.note(line)

    def advance(self, step: int) -> None:
        """Counts a step."""
        if self._layout is not None:
            self._progress.advance(step)

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the mean `loss` and `top1_error` since the last such line, and `learning_rate`."""
        if self._layout is None:
            return
        self._log.write(step, "train", values)
        self._progress.train(step, values)
        speed = self._progress.images_per_second
        timed = values if speed is None else {**values, "images_per_second": speed}
        self._tensorboard.write(step, "train", timed)

    def evaluation(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Logs the errors on a split, and draws the curves anew."""
        if self._layout is None:
            return
        self._log.write(step, split, values)
        self._tensorboard.write(step, split, values)
        self._progress.evaluation(step, split, values)
        draw_curves(self._log.rows(), self._layout.report / "curves.png", title=self._title)

    def sync(self) -> None:
        """Makes the logs durable: a checkpoint must not know more than they."""
        if self._layout is not None:
            self._log.sync()
            self._tensorboard.flush()

    @contextlib.contextmanager
    def pause(self, doing: str) -> Iterator[None]:
        """Leaves out the time of what is done inside from the speed of training."""
        with contextlib.nullcontext() if self._layout is None else self._progress.pause(doing):
            yield

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._layout is not None:
            self._progress.close()
            self._tensorboard.close()
            self._log.close()
