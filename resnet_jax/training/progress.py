"""What a run says on the terminal: a live bar, or plain lines where nobody watches."""

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

from tqdm import tqdm

_ON_BAR = ("loss", "top1_error")


class Progress:
    """Says how far a run is, how well it does, how fast it goes and how long it will take.

    Where the stream is a terminal, a bar moves with each step and stays one line; evaluations and
    notes stand above it. Elsewhere each log and each evaluation is a line.

    Values are shown by their names: `*_error` in percent, `loss` with four places.

    Attributes:
      images_per_second: Images of training a second between the last two logs, over all devices,
        without the time spent in `pause`; None before there were two. The first step, which
        compiles, does not count.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int,
        batch_size: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Begins a display.

        Args:
          total_steps: The step at which the run ends.
          start_step: The step that it goes on from.
          batch_size: Images of a step, over all devices.
          stream: Where to write; `sys.stderr` by default.
          clock: Gives the time, in seconds.
        """
        self.images_per_second: float | None = None
        self._total = total_steps
        self._step = start_step
        self._batch_size = batch_size
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._first: tuple[int, float] | None = None  # step and time at the end of the first step
        self._last = (start_step, 0.0)  # step and time of the last log
        self._paused = 0.0  # seconds since the last log
        self._values = ""
        self._doing = ""
        self._width = 0
        self._bar = _Bar(self, start_step) if _is_terminal(self._stream) else None

    def advance(self, step: int) -> None:
        """Notes that a step was taken, or sent to the device."""
        self._step = step
        if self._first is None:
            self._first = self._last = (step, self._clock())
            self._paused = 0.0
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """Shows what was measured in training, when the device has come to `step`."""
        now = self._clock()
        last_step, last_time = self._last
        seconds = now - last_time - self._paused
        if self._first is not None and step > last_step and seconds > 0:
            self.images_per_second = (step - last_step) * self._batch_size / seconds
        self._step, self._last, self._paused = step, (step, now), 0.0
        if self._bar is None:
            self._line(step, "train", [*_texts(values), *self._pace()])
        else:
            self._values = "  ".join(_texts({k: values[k] for k in _ON_BAR if k in values}))
            self._bar.refresh()

    def evaluation(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Shows what was measured on a split."""
        self._line(step, split, _texts(values))

    def note(self, text: str) -> None:
        """Shows a line of text."""
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)

    @contextlib.contextmanager
    def pause(self, doing: str = "") -> Iterator[None]:
        """Leaves a time out of the images per second.

        Args:
          doing: What the time is spent on, for the bar, such as "evaluating".
        """
        begin = self._clock()
        self._doing = doing
        if self._bar is not None:
            self._bar.refresh()
        try:
            yield
        finally:
            self._paused += self._clock() - begin
            self._doing = ""

    def close(self) -> None:
        """Leaves the bar as it is and the cursor below it."""
        if self._bar is not None:
            self._bar.close()

    def status(self) -> str:
        """Returns what stands on the right of the bar."""
        doing = "starting" if self._first is None else self._doing
        texts = [f"{doing} ..."] if doing else [text.strip() for text in self._pace()]
        status = "  ".join([self._values, *texts] if self._values else texts)
        self._width = max(self._width, len(status))  # the bar does not jump
        return status.ljust(self._width)

    def _line(self, step: int, split: str, texts: list[str]) -> None:
        width = len(str(self._total))
        start = f"step {step:>{width}}/{self._total}"
        self.note("  ".join([start, f"{split:<5}", *texts]).rstrip())

    def _pace(self) -> list[str]:
        if self.images_per_second is None or self._first is None:
            return []
        speed = self.images_per_second
        texts = [f"{speed:>7,.0f} images/s" if speed >= 10 else f"{speed:>7.1f} images/s"]
        first_step, first_time = self._first
        if first_step < self._step < self._total:
            # Evaluations and checkpoints are part of what is still to come.
            pace = (self._clock() - first_time) / (self._step - first_step)
            texts.append(f"{_duration(pace * (self._total - self._step))} left")
        return texts


class _Bar(tqdm):
    monitor_interval = 0  # no thread that wakes a bar that waits for an evaluation

    def __init__(self, progress: Progress, start_step: int) -> None:
        self._progress = progress
        super().__init__(
            total=progress._total,
            initial=start_step,
            file=progress._stream,
            dynamic_ncols=True,
            bar_format=f"step {{n:>{len(str(progress._total))}}}/{{total}} {{bar}}  {{status}}",
        )

    @property
    def format_dict(self) -> dict[str, object]:
        return {**super().format_dict, "status": self._progress.status()}


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
    if isinstance(value, int):
        return f"{label} {value:,}"
    return f"{label} {value:<7.4g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes} min {rest:02} s"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes:02} min"
