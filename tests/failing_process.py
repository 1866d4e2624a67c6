"""`train.py` in which something goes wrong: `python failing_process.py FAULT FILE ARGUMENTS...`.

The time at which it does is written to FILE. FAULT@N is one of process N alone.
"""

import errno
import os
import pathlib
import signal
import sys
import time

from resnet_jax.cli import frame
from resnet_jax.training.run import Run
from tests.faults import Fault

STEP = 6


def at_step(happens):
    """Lets something happen before a step."""
    method = Run.train_step

    def train_step(run, statistics):
        take, step = method(run, statistics), 0

        def counted(state, batch):
            nonlocal step
            step += 1
            if step == STEP:
                note()
                happens()
            return take(state, batch)

        return counted

    Run.train_step = train_step


def note():
    pathlib.Path(sys.argv[2]).write_text(str(time.time()))


def fail(*_):
    raise ZeroDivisionError("in the step")


def disk_full(*_):
    note()
    raise OSError(errno.ENOSPC, "No space left on device")


def no_input(*_):
    note()
    raise OSError(errno.EIO, "Input/output error")


def hang_in_the_middle(function, *args, **kwargs):
    for count, item in enumerate(function(*args, **kwargs)):
        if count == STEP:
            note()
            time.sleep(10_000)
        yield item


def slowly(function, *args, **kwargs):
    for item in function(*args, **kwargs):
        time.sleep(0.2)
        yield item


def signalled(number):
    """Returns the same with a signal after the second item."""

    def instead(*args, **kwargs):
        for count, item in enumerate(slowly(*args, **kwargs)):
            if count == 2:
                note()
                os.kill(os.getpid(), number)
            yield item

    return instead


def evaluation(instead):
    return lambda: Fault("resnet_jax.evaluation.engine:eval_batches", "", instead).inject()


FAULTS = {
    "input": lambda: Fault("resnet_jax.data.images:MemoryImages.read", "*", no_input).inject(),
    "hanging input": lambda: Fault(
        "resnet_jax.training.run:train_batches", "*", hang_in_the_middle
    ).inject(),
    "step": lambda: at_step(fail),
    "stop": lambda: at_step(lambda: os.kill(os.getpid(), signal.SIGSTOP)),
    "kill": lambda: at_step(lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "arrays": lambda: Fault("os:rename", "*|*/4.*/training", disk_full).inject(),
    "manifest": lambda: Fault("os:replace", "*|*/4/manifest.json", disk_full).inject(),
    "slow evaluation": evaluation(slowly),
    "SIGTERM in an evaluation": evaluation(signalled(signal.SIGTERM)),
    "SIGUSR1 in an evaluation": evaluation(signalled(signal.SIGUSR1)),
    "none": lambda: None,
}

if __name__ == "__main__":
    fault, _, process = sys.argv[1].partition("@")
    if not process or f"--process_id={process}" in sys.argv:
        FAULTS[fault]()
    frame.run("train", sys.argv[3:], name="train.py")
