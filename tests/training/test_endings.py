"""An error on one process ends all of them after the same step, with whole states."""

import itertools
import threading

import pytest

from resnet_jax.errors import InputError, ProcessError
from resnet_jax.training.endings import Endings
from tests.test_board import Store, boards

AHEAD = 2
LAST = 30


def input_of(stop, error=None):
    yield from range(stop)
    if error is not None:
        raise error


def alone():
    return Endings(None, steps_ahead=AHEAD, last=LAST)


def test_alone_all_batches_before_the_one_that_fails_are_had_and_none_is_read_ahead():
    endings = alone()
    error = InputError("bad")
    read = []
    source = (read.append(i) or i for i in input_of(5, error))
    with endings:
        for batch in endings.watch(source, 20):
            assert read[-1] == batch
            assert endings.after(20 + batch) is None
    assert batch == 4
    assert endings.after(24) is None
    assert endings.after(25) is error


def test_an_input_that_comes_to_its_end_ends_nothing():
    with alone() as endings:
        assert list(endings.watch(input_of(10), LAST - 10)) == list(range(10))
        assert endings.after(LAST) is None


def test_what_goes_wrong_after_a_step_ends_a_run_alone_after_that_step():
    with alone() as endings:
        error = OSError("full")
        endings.soon(7, error)
        endings.soon(6, OSError("again"))  # only the first counts
        assert endings.after(6) is None
        assert endings.after(7) is error


class Device:
    """Steps that are done once all processes have dispatched them."""

    def __init__(self, processes):
        self._dispatched = [0] * processes
        self._changed = threading.Condition()

    def dispatch(self, process):
        with self._changed:
            self._dispatched[process] += 1
            self._changed.notify_all()

    def wait_for(self, step):
        with self._changed:
            assert self._changed.wait_for(lambda: min(self._dispatched) >= step, timeout=20)


def run(inputs, soon=None):
    """Returns for each process the step after which it ended, and why.

    Args:
      inputs: Of each process.
      soon: The step after which the first process has an error of another kind.
    """
    count = len(inputs)
    device, start = Device(count), threading.Barrier(count)
    ended = [None] * count

    def process(number, board):
        step = 0
        with Endings(board, steps_ahead=AHEAD, last=LAST) as endings:
            batches = endings.watch(inputs[number], 0)
            first = list(itertools.islice(batches, 1))
            start.wait(20)
            for batch in itertools.chain(first, batches):
                if endings.after(step) is not None:
                    break
                assert batch == step
                step += 1
                device.dispatch(number)
                device.wait_for(step - AHEAD if step < LAST else LAST)
                if (number, step) == (0, soon):
                    endings.soon(step, OSError("full"))
            ended[number] = step, endings.after(step)

    threads = [
        threading.Thread(target=process, args=entry) for entry in enumerate(boards(Store(), count))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("batch", [0, 1, 2, 3, 4, 11, LAST - 1])
def test_all_end_after_the_batches_that_all_have(processes, batch):
    error = InputError("image 7 is bad")
    inputs = [input_of(LAST) for _ in range(processes)]
    inputs[1] = input_of(batch, error)
    for number, (step, why) in enumerate(run(inputs)):
        assert step == batch
        assert isinstance(why, InputError)
        assert why is error if number == 1 else str(why) == "image 7 is bad (process 1)"


@pytest.mark.parametrize("batches", [(5, 6, 30), (6, 5, 7), (9, 5, 5), (0, 0, 1), (20, 30, 3)])
def test_of_several_the_first_counts(batches):
    inputs = [input_of(batch, InputError("bad") if batch < LAST else None) for batch in batches]
    ends = run(inputs)
    assert {step for step, _ in ends} == {min(batches)}
    blamed = batches.index(min(batches))
    for number, (_, why) in enumerate(ends):
        assert str(why) == ("bad" if number == blamed else f"bad (process {blamed})")


@pytest.mark.parametrize("step", [1, 12, LAST - 2])
def test_what_goes_wrong_beside_the_input_ends_all_as_soon_as_all_can(step):
    (mine, why), (other, its) = run([input_of(LAST), input_of(LAST)], soon=step)
    assert mine == other == min(step + AHEAD + 1, LAST)
    assert isinstance(why, OSError)
    assert isinstance(its, ProcessError)
    assert str(its) == "OSError: full (process 0)"


def test_nobody_ends_where_nothing_is_wrong():
    assert run([input_of(LAST), input_of(LAST)]) == [(LAST, None), (LAST, None)]
