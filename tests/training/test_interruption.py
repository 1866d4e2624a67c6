"""A signal is a request; the loop answers it at the end of a step."""

import signal
import threading
import time

import pytest

from resnet_jax.training.interruption import Interrupted, Interruption
from tests.launcher import fork

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of the tests: they come back, and a signal that gets through is seen."""
    seen = []
    old = {n: signal.signal(n, lambda n, _: seen.append(n)) for n in SIGNALS}
    before = {n: signal.getsignal(n) for n in old}
    yield seen
    assert {n: signal.getsignal(n) for n in old} == before
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_only_asks(number, handlers):
    with Interruption() as interruption:
        assert not interruption.should_stop()
        assert interruption.requested is None
        signal.raise_signal(number)
        assert interruption.requested is number
        assert interruption.should_stop() is number
    assert handlers == []
    signal.raise_signal(number)
    assert handlers == [number]


def test_a_second_ctrl_c_stops_at_once(handlers):
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interruption.requested is signal.SIGINT


def test_one_that_comes_twice_at_once_or_another_one_asks_again(handlers):
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.requested is signal.SIGTERM
        signal.raise_signal(signal.SIGINT)  # the first Ctrl-C


def ask_twice(number):
    with Interruption():
        signal.raise_signal(number)
        time.sleep(0.3)
        signal.raise_signal(number)
        time.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_same_one_again_ends_the_process_at_once(number):
    process = fork(ask_twice, number)
    process.join(30)
    assert process.exitcode == -number


def test_one_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGHUP)
        assert interruption.should_stop() is None
    assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


def test_the_handlers_come_back_after_an_error(handlers):
    with pytest.raises(ZeroDivisionError), Interruption():
        _ = 1 / 0
    signal.raise_signal(signal.SIGTERM)
    assert handlers == [signal.SIGTERM]


def test_in_another_thread_signals_do_what_they_did(handlers):
    entered, leave, stops = threading.Event(), threading.Event(), []

    def work():
        with Interruption() as interruption:
            entered.set()
            leave.wait(60)
            stops.append(interruption.should_stop())

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait(60)
    signal.raise_signal(signal.SIGTERM)
    leave.set()
    thread.join()
    assert stops == [None]
    assert handlers == [signal.SIGTERM]


def test_several_processes_stop_at_the_step_they_agree_on(handlers):
    agreed = 3
    with Interruption(sync=lambda call: call == agreed) as interruption:
        signal.raise_signal(signal.SIGTERM)  # the preemption service's, not ours
        assert handlers == [signal.SIGTERM]
        stops = [interruption.should_stop() for _ in range(3)]
    assert stops == [None, None, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS[1:])
def test_several_processes_hear_of_the_others_as_sigterm(number, handlers):
    with Interruption(sync=lambda _: bool(handlers)) as interruption:
        assert not interruption.should_stop()
        signal.raise_signal(number)
        assert handlers == [signal.SIGTERM]
        assert interruption.should_stop() is number


def test_it_says_how_to_go_on():
    error = Interrupted(120, signal.SIGTERM, "runs/w")
    assert (error.step, error.signal, str(error.workdir)) == (120, signal.SIGTERM, "runs/w")
    assert (error.exit_status, error.on_all_processes) == (75, True)
    assert str(error) == (
        "interrupted by SIGTERM and saved at step 120; "
        "the same command goes on from there (the workdir is runs/w)"
    )
