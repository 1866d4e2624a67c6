"""The logs of a run: `metrics.jsonl`, TensorBoard events, the terminal and the curves."""

import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Self, TextIO, TypeAlias

from etils import epath
from tqdm import tqdm

from resnet_jax.checkpoints import Layout
from resnet_jax.errors import InputError
from resnet_jax.files import GrowingFile, write_atomically
from resnet_jax.training.curves import draw_curves
from resnet_jax.training.tensorboard import TensorBoard

Row: TypeAlias = dict[str, int | float | str]
"""A line of `metrics.jsonl`: `step`, `split`, and the values by name."""

# Strict JSON has no such numbers; protobuf's JSON writes these strings for them.
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
_ON_BAR = ("loss", "top1_error")


class Logger:
    """Writes the logs of a run, and shows it on the terminal.

    On a terminal a bar moves with each step, and evaluations and notes stand above it; elsewhere
    each log is a line. Errors are in percent. On processes other than the primary one nothing is
    written.

    Attributes:
      images_per_second: Training images a second between the last two logs, over all devices,
        without the time spent in `pause` and the first step, which compiles; None before that.
      lost_step: The last step of a train line that was removed; it had been taken before.
    """

    def __init__(
        self,
        layout: Layout | None,
        *,
        title: str,
        start_step: int,
        total_steps: int,
        batch_size: int,
        lacks_evaluation: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Opens the logs; lines of steps after `start_step` are removed, and will be written again.

        So is the evaluation of `start_step` if the checkpoint lacks it.

        `layout` is the workdir, None on processes that write nothing; `title` stands above the
        curves; `batch_size` is that over all devices; the terminal is `sys.stderr` by default.

        Raises:
          InputError: A line of `metrics.jsonl` is not one of a log. The file stays as it is.
        """
        self.images_per_second: float | None = None
        self.lost_step = 0
        self._layout, self._title = layout, title
        self._step, self._total, self._batch_size = start_step, total_steps, batch_size
        self._stream, self._clock = stream or sys.stderr, clock
        self._first: tuple[int, float] | None = None  # step and time at the end of the first step
        self._last = (start_step, 0.0)  # step and time of the last log
        self._paused = 0.0  # seconds since then
        self._values, self._doing, self._width = "", "", 0
        if layout is not None:
            self._metrics = MetricsLog(
                layout.metrics, resume_step=start_step, lacks_evaluation=lacks_evaluation
            )
            self.lost_step = self._metrics.lost_step
            self._tensorboard = TensorBoard(
                layout.tensorboard, resume_step=start_step - lacks_evaluation
            )
            if lacks_evaluation:  # TensorBoard has dropped the whole step
                for row in self._metrics.rows():
                    if row["step"] == start_step:
                        values = {k: float(v) for k, v in row.items() if k not in ("step", "split")}
                        self._tensorboard.write(start_step, str(row["split"]), values)
        self._bar = tqdm(
            total=total_steps,
            initial=start_step,
            file=self._stream,
            disable=layout is None or not _is_terminal(self._stream),
            dynamic_ncols=True,
            miniters=1,
            desc=self._status(),
            bar_format=f"step {{n:>{len(str(total_steps))}}}/{{total}} {{bar}}  {{desc}}",
        )

    def note(self, line: str) -> None:
        """Shows a line on the terminal."""
        if self._layout is not None:
            self._bar.write(line, file=self._stream)

    def note_hole(self, log_every: int) -> None:
        """Shows a line if `metrics.jsonl` ends before the step from which the run goes on."""
        if self._layout is not None and self._metrics.last_step + log_every <= self._step:
            self.note(
                f"{self._layout.metrics} has no train line after step {self._metrics.last_step}, "
                f"and the run goes on from step {self._step}: lines are missing, unless log_every "
                "was larger"
            )

    def advance(self, step: int) -> None:
        """Counts a step that was taken, or sent to the device."""
        self._step = step
        if self._first is None:
            self._first = self._last = (step, self._clock())
            self._paused = 0.0
        if not self._bar.disable:
            self._bar.set_description_str(self._status(), refresh=False)
            self._bar.update(step - self._bar.n)

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """Logs means since the last log, such as `loss`; the device has to have come to `step`."""
        if self._layout is None:
            return
        now = self._clock()
        last_step, last_time = self._last
        seconds = now - last_time - self._paused
        if self._first is not None and step > last_step and seconds > 0:
            self.images_per_second = (step - last_step) * self._batch_size / seconds
        self._last, self._paused = (step, now), 0.0
        speed = self.images_per_second
        self._metrics.write(step, "train", values)
        timed = values if speed is None else {**values, "images_per_second": speed}
        self._tensorboard.write(step, "train", timed)
        if self._bar.disable:
            self._line(step, "train", [*_texts(values), *self._pace()])
        self._values = "  ".join(_texts({k: values[k] for k in _ON_BAR if k in values}))
        self._bar.set_description_str(self._status())

    def evaluation(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Logs the errors on a split, and draws the curves."""
        if self._layout is None:
            return
        self._metrics.write(step, split, values)
        self._tensorboard.write(step, split, values)
        self._line(step, split, _texts(values))
        draw_curves(self._metrics.rows(), self._layout.report / "curves.png", title=self._title)

    def time(self, step: int, shares: Mapping[str, float]) -> None:
        """Shows the percent of the time that each phase of the run has taken; see `Watch`."""
        if self._layout is not None:
            self._tensorboard.write(step, "time", shares)
            self._line(step, "time", [f"{name} {share:.1f}%" for name, share in shares.items()])

    def sync(self) -> None:
        """Makes the logs durable: no checkpoint may be of a later step than they."""
        if self._layout is not None:
            self._metrics.file.sync()
            self._tensorboard.file.sync()

    @contextlib.contextmanager
    def pause(self, doing: str) -> Iterator[None]:
        """Leaves the time inside out of the images per second; the bar shows `doing` meanwhile."""
        begin, self._doing = self._clock(), doing
        self._bar.set_description_str(self._status())
        try:
            yield
        finally:
            self._paused += self._clock() - begin
            self._doing = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()  # leaves it as it is, and the cursor below it
        if self._layout is not None:
            self._tensorboard.file.close()
            self._metrics.file.close()

    def _line(self, step: int, split: str, texts: list[str]) -> None:
        start = f"step {step:>{len(str(self._total))}}/{self._total}"
        self.note("  ".join([start, f"{split:<5}", *texts]).rstrip())

    def _status(self) -> str:
        """Returns the text on the right of the bar."""
        doing = "starting" if self._first is None else self._doing
        texts = [f"{doing} ..."] if doing else [text.strip() for text in self._pace()]
        status = "  ".join([self._values, *texts] if self._values else texts)
        self._width = max(self._width, len(status))  # the bar does not jump
        return status.ljust(self._width)

    def _pace(self) -> list[str]:
        if self.images_per_second is None or self._first is None:
            return []
        speed = self.images_per_second
        texts = [f"{speed:>7,.0f} images/s" if speed >= 10 else f"{speed:>7.1f} images/s"]
        first_step, first_time = self._first
        if first_step < self._step < self._total:
            # Evaluations and checkpoints are part of the time that is left.
            pace = (self._clock() - first_time) / (self._step - first_step)
            texts.append(f"{_duration(pace * (self._total - self._step))} left")
        return texts


class MetricsLog:
    """`metrics.jsonl`, one JSON object a line, the same after any interruption.

    Only what is the same in every run may be written: no times, no speeds. A line is written whole
    and at once, in an object store when the file is synchronised.

    Attributes:
      file: To be synchronised and closed.
      last_step: The step of the last train line when it was opened, 0 if there was none.
      lost_step: That of the last one that was removed then, 0 if none was.
    """

    def __init__(
        self, path: epath.PathLike, *, resume_step: int, lacks_evaluation: bool = False
    ) -> None:
        """Opens the log, without the lines of later steps and a last line that was cut off.

        If the checkpoint lacks its evaluation, that of the step itself is removed, too.
        """
        self._path = epath.Path(path)
        before = self._path.read_bytes() if self._path.exists() else b""
        parsed = _parse(before, self._path)
        lines = [
            (line, row)
            for line, row in parsed
            # Only evaluations count examples.
            if int(row["step"]) <= resume_step - (lacks_evaluation and "examples" in row)
        ]
        steps = [int(row["step"]) for _, row in parsed if row["split"] == "train"]
        self.last_step = max((step for step in steps if step <= resume_step), default=0)
        self.lost_step = max((step for step in steps if step > resume_step), default=0)
        after = b"".join(line + b"\n" for line, _ in lines)
        if after != before:
            write_atomically(self._path, after)
        self.file = GrowingFile(self._path)

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends a line; integers stay integers."""
        row = {"step": step, "split": split} | {k: _encoded(v) for k, v in values.items()}
        line = json.dumps(row, allow_nan=False, ensure_ascii=False)
        self.file.write(line.encode() + b"\n")

    def rows(self) -> list[Row]:
        """Returns the rows of this run and of those it goes on from."""
        self.file.sync()
        return read_metrics(self._path)


def read_metrics(path: epath.PathLike) -> list[Row]:
    """Returns the rows of a `metrics.jsonl`.

    Raises:
      InputError: A line is not one of a log.
      OSError: It cannot be read.
    """
    path = epath.Path(path)
    return [row for _, row in _parse(path.read_bytes(), path)]


def _parse(content: bytes, path: epath.Path) -> list[tuple[bytes, Row]]:
    """Returns each line and its row, without a last line that was cut off."""
    *lines, last = content.split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append((line, _row(line)))
        except ValueError as error:
            raise InputError(
                f"line {number} of {path} is not one of a log ({error}); repair or remove that line"
            ) from error
    with contextlib.suppress(ValueError):
        rows.append((last, _row(last)))
    return rows


def _row(line: bytes) -> Row:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    if type(row.get("step")) is not int or not isinstance(row.get("split"), str):
        raise ValueError('"step" or "split" is missing')
    return {name: float(v) if v in _NOT_FINITE else v for name, v in row.items()}


def _encoded(value: float) -> int | float | str:
    if isinstance(value, Integral):
        return int(value)
    value = float(value)
    return value if math.isfinite(value) else json.dumps(value)


def _is_terminal(stream: TextIO) -> bool:
    try:  # without a width, as in some containers, there is no room for a bar
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:
        return False


def _texts(values: Mapping[str, float]) -> list[str]:
    return [_text(name, value) for name, value in values.items()]


def _text(name: str, value: float) -> str:
    label = re.sub(r"\btop(\d+)", r"top-\1", name.replace("_", " "))
    if name.endswith("_error"):
        return f"{label} {value:5.2f}%"
    if name.endswith("loss"):
        return f"{label} {value:6.4f}"
    return f"{label} {value:,}" if isinstance(value, int) else f"{label} {value:<7.4g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
