"""Runs of which one part was made slow."""

import dataclasses
import itertools
import sys
import time
from functools import partial

import pytest

from resnet_jax.data import DecodedImages
from resnet_jax.doctor import describe, measure, report
from resnet_jax.doctor.measure import seconds_each
from resnet_jax.doctor.report import find_limit
from resnet_jax.errors import InputError
from resnet_jax.training.run import Run
from tests.data.pictures import write_folder
from tests.tiny import tiny_config

measure = partial(measure, say=lambda line: None)
MODULE = sys.modules["resnet_jax.doctor.measure"]
SLOW = 0.02  # seconds an image; what is not slowed down takes a hundredth


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "root"
    write_folder(root, {split: {"ant": 24, "bee": 24} for split in ("train", "test")})
    return tiny_config(
        **{
            "data.source": "folder",
            "data.path": str(root),
            "data.in_memory": False,
            "data.augment": "scale_jitter",
            "data.workers": 2,
            "batch_size": 8,
        }
    )


class SlowSource:
    def __init__(self, source):
        self.class_names = source.class_names
        self._source = source

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        time.sleep(SLOW)
        return self._source[index]


class SlowDecoder:
    def __init__(self, images):
        self._images = images
        self.class_names, self.image_shape = images.class_names, images.image_shape

    def __len__(self):
        return len(self._images)

    def read(self, indices, crops=None):
        time.sleep(SLOW * len(indices))
        return self._images.read(indices, crops)


@dataclasses.dataclass(frozen=True)
class SlowSteps(Run):
    def train_step(self, statistics):
        step = super().train_step(statistics)

        class SlowStep:
            def compile(self, *arguments):
                self._compiled = step.compile(*arguments)
                return self

            def memory_analysis(self):
                return None

            def __call__(self, state, batch):
                time.sleep(8 * SLOW)
                return self._compiled(state, batch)

        return SlowStep()


def decoded(source, threads=2):
    return DecodedImages(source, 8, workers=threads)


def slow_reading(run, monkeypatch):
    source = SlowSource(load_source(run))
    monkeypatch.setattr(MODULE, "load_source", lambda *_, **__: source)
    return dataclasses.replace(run, train_images=decoded(source))


def slow_decoding(run, monkeypatch):
    made = MODULE.DecodedImages
    monkeypatch.setattr(MODULE, "DecodedImages", lambda *a, **k: SlowDecoder(made(*a, **k)))
    return dataclasses.replace(run, train_images=SlowDecoder(run.train_images))


def slow_steps(run, monkeypatch):
    return SlowSteps(**{field.name: getattr(run, field.name) for field in dataclasses.fields(Run)})


def load_source(run):
    data = run.config.data
    return MODULE.load_source(data.source, data.train_split, name=data.name, path=data.path)


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        (slow_reading, "reading"),
        pytest.param(slow_decoding, "decoding", marks=pytest.mark.slow),
        (slow_steps, "step"),
    ],
)
def test_names_the_part_that_was_made_slow(config, monkeypatch, change, limit):
    run = change(Run.from_config(config), monkeypatch)
    parts = []
    findings = measure(run, seconds=0.3, say=parts.append)
    assert find_limit(describe(run), findings) == limit
    slow = {
        "reading": findings.reading,
        "decoding": findings.decoding[2],
        "step": findings.step,
    }
    # No part is faster than it was made, and none faster with the others than alone.
    threads = 2 if limit == "reading" else 1
    assert slow[limit] < 1.1 * threads / SLOW
    assert findings.together < 1.2 * threads / SLOW
    assert parts[0] == "reading"
    assert parts[-1] == "together"
    text = report(describe(run), findings).replace("The step", "Step")
    assert f"{limit.capitalize()} limits" in text


def test_images_in_memory():
    run = Run.from_config(tiny_config(total_steps=2))  # fewer than are measured
    findings = measure(run, seconds=0.2)
    case = describe(run)
    assert (case.examples, case.batch_size, case.image_shape) == (1437, 16, (8, 8, 1))
    assert case.in_memory
    assert not case.crops
    assert case.shares_cores
    assert case.heading.startswith("cifar_resnet8 on 1,437 images of digits, train\n")
    assert findings.sent_bytes == 8 * 8 + 4 + 2 * 4  # pixels, label, place of the crop
    assert findings.encoded_bytes == 64
    assert 1 in findings.decoding
    assert case.workers in findings.decoding
    assert findings.step_bytes is None or findings.step_bytes > 3000
    assert find_limit(case, findings) in ("batches", "transfer", "step")


def test_reading_is_of_new_examples(config, monkeypatch):
    run = Run.from_config(config)
    read = []

    class Noted(SlowSource):
        def __getitem__(self, index):
            read.append(index)
            return self._source[index]

    source = Noted(load_source(run))
    monkeypatch.setattr(MODULE, "load_source", lambda *_, **__: source)
    measure(run, seconds=0.01)
    # Two batches that do not count and one that does, all of them of other images.
    assert len(read) >= 3 * 8
    assert len(set(read[: 3 * 8])) == 3 * 8


def test_a_case_knows_where_the_data_are(config):
    run = Run.from_config(config)
    case = describe(run)
    assert case.data_flags == f"--source folder --path {config.data.path}"
    assert (case.prepared, case.remote, case.crops) == (False, False, True)
    assert case.shorter_side == round(480 * 8 / 224)
    assert case.host_memory > 10**8


def test_several_processes_are_measured_under_shard_map(config):
    class OneOfTwo:
        def rows(self, batch_size):
            return slice(0, batch_size // 2)

    run = Run.from_config(config)
    run = dataclasses.replace(run, replicas=OneOfTwo())
    with pytest.raises(InputError, match=r"add --config\.parallel=shard_map$"):
        measure(run, seconds=1.0)


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
    monkeypatch.setattr(MODULE, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("seconds", "count"), [(0.125, 8), (0.4, 3), (1.1, 1), (1e-6, 1000), (0.0, 1000)]
)
def test_how_many_items_are_timed(clock, seconds, count):
    times = itertools.chain([50.0, 7.0], itertools.repeat(seconds))
    taken = (clock.sleep(each) for each in times)
    assert seconds_each(taken, limit=1.0) == pytest.approx(seconds)
    assert clock.now == pytest.approx(157 + count * seconds)


def test_the_mean_of_items_that_come_in_bursts(clock):
    made = []

    def items():
        for number in itertools.count():
            if number % 2 == 0:
                clock.sleep(0.5)  # for two
            made.append(number)
            yield number

    assert seconds_each(items(), limit=2.0) == pytest.approx(0.25)
    assert len(made) == 2 + 4
