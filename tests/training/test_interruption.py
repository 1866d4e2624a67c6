"""A signal is a request; the loop answers it at the end of a step."""

import signal
import threading

import pytest

from resnet_jax.training.interruption import Interrupted, Interruption


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of the tests: they come back, and a signal that gets through is seen."""
    seen = []
    old = {n: signal.signal(n, lambda n, _: seen.append(n)) for n in (2, 15)}
    before = {n: signal.getsignal(n) for n in old}
    yield seen
    assert {n: signal.getsignal(n) for n in old} == before
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_only_asks(number, handlers):
    with Interruption() as interruption:
        assert not interruption.should_stop(1)
        assert interruption.requested is None
        signal.raise_signal(number)
        assert interruption.requested is number
        assert interruption.should_stop(2) is number
    assert handlers == []
    signal.raise_signal(number)
    assert handlers == [number]


def test_a_second_ctrl_c_stops_at_once(handlers):
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interruption.requested is signal.SIGINT


def test_a_second_sigterm_asks_again(handlers):
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.requested is signal.SIGTERM
        signal.raise_signal(signal.SIGINT)  # the first Ctrl-C


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
            stops.append(interruption.should_stop(1))

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait(60)
    signal.raise_signal(signal.SIGTERM)
    leave.set()
    thread.join()
    assert stops == [None]
    assert handlers == [signal.SIGTERM]


def test_several_processes_stop_at_the_step_they_agree_on(handlers):
    agreed = 5
    with Interruption(sync=lambda step: step == agreed) as interruption:
        signal.raise_signal(signal.SIGTERM)  # the preemption service's, not ours
        assert handlers == [signal.SIGTERM]
        assert [interruption.should_stop(step) for step in (3, 4, 5)] == [
            None,
            None,
            signal.SIGTERM,
        ]


def test_several_processes_hear_of_ctrl_c_as_sigterm(handlers):
    with Interruption(sync=lambda step: bool(handlers)) as interruption:
        assert not interruption.should_stop(1)
        signal.raise_signal(signal.SIGINT)
        assert handlers == [signal.SIGTERM]
        assert interruption.should_stop(2) is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_it_says_how_to_go_on():
    error = Interrupted(120, signal.SIGTERM, "runs/w")
    assert (error.step, error.signal, str(error.workdir)) == (120, signal.SIGTERM, "runs/w")
    assert (error.exit_status, error.on_all_processes) == (75, True)
    assert str(error) == (
        "interrupted by SIGTERM and saved at step 120; "
        "the same command goes on from there (the workdir is runs/w)"
    )
