"""The phases of a run: their shares, and the end of a run that hangs in one."""

import multiprocessing
import os
import signal
import time

import pytest

from resnet_jax.training.watch import EXIT_HUNG, Watch


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_each_second_counts_for_one_phase():
    clock = Clock()
    watch = Watch(clock=clock)
    clock.now += 4  # start
    with watch.phase("evaluation"):  # of a run that goes on
        clock.now += 2
    for step, _ in enumerate(watch.each("input", slow(clock, 3)), start=1):
        clock.now += 5  # in the first two, start: the first, and one that was lost
        watch.stepped(step, again=step == 1)
        with watch.phase("save"):
            clock.now += 1
            with watch.phase("evaluation"):
                clock.now += 1
    shares = watch.shares()
    whole = clock.now - 100
    assert sum(shares.values()) == pytest.approx(100)
    assert {phase: round(share * whole / 100) for phase, share in shares.items()} == {
        "step": 5,
        "input": 3 * 2,
        "save": 3,
        "evaluation": 2 + 3,
        "start": 4 + 2 * 5,
    }


def slow(clock, count):
    for number in range(count):
        clock.now += 2
        yield number


def hang(limits, begun, phase, seconds):
    with Watch() as watch:
        watch.limit(limits)
        if begun:
            watch.stepped(7, again=False)
        with watch.phase(phase):
            time.sleep(seconds)


def end(*arguments):
    """Returns a process that hangs."""
    process = multiprocessing.get_context("fork").Process(target=hang, args=arguments)
    process.start()
    return process


LIMITS = {"first_step": 30.0, "step": 30.0, "input": 1.0, "save": 30.0, "evaluation": None}


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_phase_ends_at_its_limit_and_at_no_other(capfd):
    hung = end(LIMITS, True, "input", 60.0)
    others = [
        end(LIMITS, begun, phase, 3.0)
        for begun, phase in [(False, "input"), (True, "save"), (True, "evaluation")]
    ]
    stopped = end(LIMITS, True, "input", 0.7)
    time.sleep(0.3)
    os.kill(stopped.pid, signal.SIGSTOP)
    began = time.monotonic()
    hung.join(20)
    assert hung.exitcode == EXIT_HUNG
    assert time.monotonic() - began < 10
    for other in others:
        other.join(20)
        assert other.exitcode == 0
    os.kill(stopped.pid, signal.SIGCONT)
    stopped.join(20)
    assert stopped.exitcode == 0
    said = capfd.readouterr().err
    assert "time.sleep" in said or "in hang" in said  # the stacks
    assert said.splitlines()[-1] == (
        "the run has hung for 1 s (timeouts.input) in its input after step 7, see the stacks "
        "above; the same command goes on from the newest checkpoint"
    )
