import itertools

import pytest

from resnet_jax.doctor import timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `sleep` moves."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("limit", "estimate", "calls"),
    [(1.0, 0.1, 10), (1.0, 0.4, 3), (1.0, 1.1, 1), (1.0, 1e-6, 1000), (1.0, 0.0, 1000)],
)
def test_how_often(limit, estimate, calls):
    assert timing.calls_within(limit, estimate) == calls


def test_a_median_without_the_first_call(clock):
    times = iter([50.0, 0.25, 0.1, 9.0, 0.3])
    called = []

    def work():
        called.append(next(times))
        clock.sleep(called[-1])

    assert timing.seconds_of(work, limit=1.0) == pytest.approx(0.275)
    assert len(called) == 5


def test_a_call_that_takes_too_long_is_timed_once(clock):
    called = []
    assert timing.seconds_of(lambda: called.append(clock.sleep(7.0)), limit=1.0) == 7.0
    assert len(called) == 2


def test_the_pace_of_what_comes_in_bursts(clock):
    made = []

    def items():
        for number in itertools.count():
            if number % 2 == 0:
                clock.sleep(0.5)  # for two
            made.append(number)
            yield number

    assert timing.pace(items(), limit=2.0) == pytest.approx(0.25)
    assert len(made) == 2 + 4
