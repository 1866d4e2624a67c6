"""Prepares a small data set again and again, killed when something is about to be made durable.

Run as a program with an empty folder as its argument, and with 3 to try a third of the moments; it
forks, so that the libraries are loaded once. It ends with status 0 if every preparation that was
killed could go on, and ended with the same bytes as one that was not.
"""

import os
import pathlib
import signal
import sys

import tensorflow_datasets.core  # noqa: F401  (loaded once, before the forks)
from tensorflow_datasets.core import example_serializer, features, read_only_builder  # noqa: F401

from resnet_jax import InputError
from resnet_jax.data.manifest import Settings, verify
from resnet_jax.data.prepare import prepare
from tests.data.prepare.preparing import Pictures

SETTINGS = Settings(shorter_side=12, examples_per_shard=3)
WATCHED = ("fsync", "replace")


def make(place):
    sources = {split: Pictures(7, bad=[4]) for split in ("train", "test")}
    prepare(sources, place, "photos", settings=SETTINGS, skip_bad=0.2, workers=2)


def in_child(work):
    """Returns how a child process ended that did some work: its exit status, or minus a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(moment, after, count):
    """Makes this process kill itself before, or after, the call of a number."""
    calls = 0

    def watch(name):
        call = getattr(os, name)

        def watched(*arguments):
            nonlocal calls
            calls += 1
            if calls == moment and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments)
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            pathlib.Path(count).write_text(str(calls))
            return result

        setattr(os, name, watched)

    for name in WATCHED:
        watch(name)


def contents(place):
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def readable(place):
    try:
        verify(place, "photos")
    except InputError:
        return False
    return True


def main(root, step):
    count = root / "count"
    reference = root / "reference"
    assert in_child(lambda: (kill_at(0, False, count), make(reference))) == 0
    expected = contents(reference)
    moments = int(count.read_text())
    assert moments > 25, moments
    ended = 0
    for moment in range(moments, 0, -step):
        for after in (False, True):
            place = root / f"{moment}-{after}"
            killed = in_child(lambda m=moment, a=after, p=place: (kill_at(m, a, count), make(p)))
            assert killed == -signal.SIGKILL, (moment, after, killed)
            ended += readable(place)
            # A second death on the way is as good as one.
            in_child(lambda a=after, p=place: (kill_at(3, a, count), make(p)))
            assert in_child(lambda p=place: make(p)) == 0, (moment, after)
            assert contents(place) == expected, (moment, after)
            assert in_child(lambda p=place: verify(p, "photos")) == 0
    # Only those were found that were killed when the last file was in its place.
    assert 1 <= ended <= 3, ended


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
