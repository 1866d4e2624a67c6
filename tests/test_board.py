"""Messages between processes: here, between threads."""

import contextlib
import threading
import time

import jax
import pytest

from resnet_jax.board import Board


class Store:
    """What jax's coordinator does, in memory."""

    def __init__(self):
        self.texts = {}
        self.gone = False

    def key_value_set(self, key, value):
        self._check()
        assert key not in self.texts
        self.texts[key] = value

    def key_value_dir_get(self, key):
        self._check()
        return [entry for entry in self.texts.copy().items() if entry[0].startswith(key)]

    def _check(self):
        if self.gone:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE")


def boards(store, count, **options):
    options = {"interval": 0.01, **options}
    return [Board(store, "run", process=i, processes=count, **options) for i in range(count)]


@pytest.fixture
def heard():
    return [], [], []


def read_all(stack, boards, heard):
    for board, messages in zip(boards, heard, strict=True):
        stack.enter_context(board.read(lambda *entry, to=messages: to.append(entry)))


def test_all_others_have_heard_when_a_post_returns(heard):
    with contextlib.ExitStack() as stack:
        three = boards(Store(), 3)
        read_all(stack, three, heard)
        three[1].post("one")
        assert heard == ([(1, "one")], [], [(1, "one")])
        three[0].post("zero")
        assert heard == ([(1, "one")], [(0, "zero")], [(1, "one"), (0, "zero")])


def test_messages_at_the_same_time_are_all_heard(heard):
    with contextlib.ExitStack() as stack:
        three = boards(Store(), 3)
        read_all(stack, three, heard)
        posts = [threading.Thread(target=board.post, args=("now",)) for board in three]
        for post in posts:
            post.start()
        for post in posts:
            post.join()
    for me, messages in enumerate(heard):
        assert sorted(messages) == [(i, "now") for i in range(3) if i != me]


def test_a_post_does_not_wait_for_ever_for_one_that_does_not_look():
    board, _ = boards(Store(), 2, patience=0.1)
    start = time.monotonic()
    board.post("no one is there")
    assert 0.1 <= time.monotonic() - start < 5


def test_where_the_coordinator_has_gone_nobody_waits(heard):
    store = Store()
    with contextlib.ExitStack() as stack:
        two = boards(store, 2)
        read_all(stack, two, heard[:2])
        store.gone = True
        start = time.monotonic()
        two[0].post("anyone?")
        assert time.monotonic() - start < 5
    assert heard == ([], [], [])


def test_a_board_of_another_run_is_another_board(heard):
    store = Store()
    other = Board(store, "other", process=0, processes=2, interval=0.01, patience=0.05)
    other.post("not for you")
    with contextlib.ExitStack() as stack:
        two = boards(store, 2)
        read_all(stack, two, heard[:2])
        two[0].post("for you")
    assert heard[1] == [(0, "for you")]
