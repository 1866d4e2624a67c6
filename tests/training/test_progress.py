"""What a user sees, on a terminal and in a file."""

import contextlib
import fcntl
import io
import os
import pty
import struct
import termios
import threading

import pytest

from resnet_jax.checkpoints import Layout
from resnet_jax.training import logging


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as stack:

        def begin(stream, **changes):
            clock = Clock()
            arguments = {"total_steps": 400, "start_step": 0, "batch_size": 128} | changes
            layout = Layout(tmp_path / "run")
            logger = logging.Logger(layout, title="", stream=stream, clock=clock, **arguments)
            return stack.enter_context(logger), clock

        yield begin


def take(progress, clock, steps, seconds=0.1):
    for step in steps:
        clock.now += seconds
        progress.advance(step)


@pytest.fixture
def terminal():
    """A terminal of 100 columns, and what was written to it."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    written = bytearray()

    def read():
        while True:
            try:
                content = os.read(master, 4096)
            except OSError:
                return
            if not content:
                return
            written.extend(content)

    reader = threading.Thread(target=read)
    reader.start()
    stream = os.fdopen(slave, "w", encoding="utf-8")

    def finish():
        stream.close()
        reader.join()
        return written.decode()

    yield stream, finish
    finish()
    os.close(master)


def test_plain_lines(start):
    stream = io.StringIO()
    progress, clock = start(stream)
    progress.note("cifar_resnet20, 269,722 parameters")
    take(progress, clock, range(1, 101))
    progress.train(100, {"loss": 0.2134, "top1_error": 5.859375, "learning_rate": 0.1})
    progress.evaluation(100, "test", {"loss": 0.5, "top1_error": 10.0, "examples": 1360})
    take(progress, clock, range(101, 401))
    progress.train(400, {"loss": 12.5, "top1_error": 0.0, "learning_rate": 0.0005})
    progress.evaluation(400, "validation", {"top5_error": float("nan")})
    assert stream.getvalue().splitlines() == [
        "cifar_resnet20, 269,722 parameters",
        "step 100/400  train  loss 0.2134  top-1 error  5.86%  learning rate 0.1        1,280 "
        "images/s  30 s left",
        "step 100/400  test   loss 0.5000  top-1 error 10.00%  examples 1,360",
        "step 400/400  train  loss 12.5000  top-1 error  0.00%  learning rate 0.0005     1,280 "
        "images/s",
        "step 400/400  validation  top-5 error   nan%",
    ]


def test_steps_are_aligned(start):
    stream = io.StringIO()
    progress, _ = start(stream, total_steps=64_000)
    progress.evaluation(5, "test", {})
    progress.evaluation(64_000, "test", {})
    assert stream.getvalue() == "step     5/64000  test\nstep 64000/64000  test\n"


def test_the_first_step_and_pauses_do_not_count_as_training(start):
    progress, clock = start(io.StringIO())
    take(progress, clock, [1], seconds=30)  # it compiles
    progress.train(1, {})
    assert progress.images_per_second is None
    take(progress, clock, range(2, 12))
    progress.train(11, {})
    assert progress.images_per_second == pytest.approx(1280)
    with progress.pause("evaluating"):
        clock.now += 50
    take(progress, clock, range(12, 22), seconds=0.2)
    with progress.pause("saving"):
        clock.now += 50
    progress.train(21, {})
    assert progress.images_per_second == pytest.approx(640)
    take(progress, clock, range(22, 32))
    progress.train(31, {})
    assert progress.images_per_second == pytest.approx(1280)


def test_a_pause_counts_for_the_time_left(start):
    stream = io.StringIO()
    progress, clock = start(stream, total_steps=21)
    take(progress, clock, range(1, 11), seconds=1)
    with progress.pause("saving"):
        clock.now += 9
    clock.now += 1
    progress.advance(11)
    progress.train(11, {})
    assert "     128 images/s  19 s left" in stream.getvalue()  # 10 steps in 19 s, 10 to go


def test_a_run_that_goes_on_counts_from_where_it_was(start):
    stream = io.StringIO()
    progress, clock = start(stream, start_step=200)
    take(progress, clock, range(201, 302))
    progress.train(301, {})
    assert progress.images_per_second == pytest.approx(1280)
    assert stream.getvalue().endswith("  10 s left\n")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.1, "10 s left"),
        (0.9, "1 min 29 s left"),
        (60, "1 h 39 min left"),
        (3600, "4 d 3 h left"),
    ],
)
def test_time_left(start, seconds, shown):
    stream = io.StringIO()
    progress, clock = start(stream, total_steps=102)
    take(progress, clock, range(1, 4), seconds)
    progress.train(3, {})
    assert stream.getvalue().endswith(shown + "\n")


def test_a_slow_run_has_a_decimal(start):
    stream = io.StringIO()
    progress, clock = start(stream, batch_size=16)
    take(progress, clock, range(1, 4), 10)
    progress.train(3, {})
    assert "    1.6 images/s" in stream.getvalue()


def test_a_bar_on_a_terminal(start, terminal):
    stream, finish = terminal
    progress, clock = start(stream)
    take(progress, clock, range(1, 101))
    progress.train(100, {"loss": 0.2134, "top1_error": 5.859375, "learning_rate": 0.1})
    with progress.pause("evaluating"):
        progress.evaluation(100, "test", {"top1_error": 10.0})
    progress.note("a note")
    take(progress, clock, range(101, 151))
    progress.train(150, {"loss": 0.1, "top1_error": 2.5, "learning_rate": 0.1})
    progress.__exit__()
    frames = [frame.rstrip() for frame in finish().replace("\n", "\r").split("\r")]
    assert max(map(len, frames)) <= 100
    assert frames[1].startswith("step   0/400 ")
    assert frames[1].endswith("starting ...")
    (logged,) = {f for f in frames if f.startswith("step 100/400 ") and f.endswith(" left")}
    assert logged.endswith("  loss 0.2134  top-1 error  5.86%  1,280 images/s  30 s left")
    assert any(f.endswith("top-1 error  5.86%  evaluating ...") for f in frames)
    # Above the bar, and once: an evaluation and a note. The last state stays.
    assert [f for f in frames if "train" in f] == []
    assert frames.count("step 100/400  test   top-1 error 10.00%") == 1
    assert frames.count("a note") == 1
    last = [f for f in frames if f][-1]
    assert last.startswith("step 150/400 ")
    assert last.endswith("  loss 0.1000  top-1 error  2.50%  1,280 images/s  25 s left")


def test_a_terminal_without_a_width_gets_lines(start, terminal):
    stream, finish = terminal
    fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    progress, _ = start(stream)
    progress.train(100, {"loss": 0.2134})
    progress.__exit__()
    assert finish() == "step 100/400  train  loss 0.2134\r\n"


def test_it_writes_to_stderr(start, capsys):
    progress, _ = start(None)
    progress.note("a note")
    assert capsys.readouterr() == ("", "a note\n")


@pytest.mark.parametrize(("kept", "since"), [(3, None), (2, 20), (0, 0)])
def test_a_hole_in_the_log_gets_a_line(tmp_path, start, kept, since):
    log = tmp_path / "run" / "metrics.jsonl"
    log.parent.mkdir()
    lines = [f'{{"step": {step}, "split": "train"}}\n' for step in (10, 20, 30)]
    log.write_text("".join(lines[:kept]) + '{"step": 35, "split": "test"}\n')
    stream = io.StringIO()
    logger, _ = start(stream, start_step=39)
    logger.note_hole(log_every=10)
    expected = f"{log} has no train line after step {since}, and the run goes on from step 39"
    assert stream.getvalue().startswith(expected) if kept < 3 else not stream.getvalue()
