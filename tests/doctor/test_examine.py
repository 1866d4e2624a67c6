"""Runs of which one part was made slow."""

import dataclasses
import time

import pytest

from resnet_jax.data import DecodedImages
from resnet_jax.doctor import Subject, case_of, examine, screen, verdict
from resnet_jax.errors import InputError
from resnet_jax.training.run import Run
from tests.data.pictures import write_folder
from tests.tiny import tiny_config

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

        class Lowered:
            def lower(self, *arguments):
                self._lowered = step.lower(*arguments)
                return self

            def compile(self):
                self._compiled = self._lowered.compile()
                return self

            def memory_analysis(self):
                return None

            def __call__(self, state, batch):
                time.sleep(8 * SLOW)
                return self._compiled(state, batch)

        return Lowered()


def decoded(source, threads=2):
    return DecodedImages(source, 8, workers=threads)


def slow_reading(subject):
    source = SlowSource(subject.source)
    run = dataclasses.replace(subject.run, train_images=decoded(source))
    return dataclasses.replace(subject, run=run, source=source)


def slow_decoding(subject):
    run = dataclasses.replace(subject.run, train_images=SlowDecoder(subject.run.train_images))
    return dataclasses.replace(
        subject, run=run, decoder=lambda source, threads: SlowDecoder(decoded(source, threads))
    )


def slow_steps(subject):
    parts = {field.name: getattr(subject.run, field.name) for field in dataclasses.fields(Run)}
    return dataclasses.replace(subject, run=SlowSteps(**parts))


@pytest.mark.parametrize(
    ("change", "limit"),
    [(slow_reading, "reading"), (slow_decoding, "decoding"), (slow_steps, "step")],
)
def test_names_the_part_that_was_made_slow(config, change, limit):
    subject = change(Subject.from_config(config))
    said = []
    findings = examine(subject, seconds=1.0, say=said.append)
    case = case_of(subject)
    assert verdict(case, findings).limit == limit
    slow = {
        "reading": findings.reading.images_per_second,
        "decoding": findings.decoding[2],
        "step": findings.step.images_per_second,
    }
    threads = 2 if limit == "reading" else 1
    assert slow.pop(limit) < 1.1 * threads / SLOW
    assert min(slow.values()) > 2 / SLOW
    # No part can be faster together with the others than alone.
    assert findings.together < 1.2 * threads / SLOW
    assert said[0] == "reading"
    assert said[-1] == "together"
    assert f"{limit.capitalize()} limits" in screen(case, findings).replace("The step", "Step")


def test_images_in_memory_and_what_a_case_says_of_them():
    subject = Subject.from_config(tiny_config(total_steps=2))  # fewer than are measured
    findings = examine(subject, seconds=0.5)
    case = case_of(subject)
    assert (case.examples, case.batch_size, case.image_shape) == (1437, 16, (8, 8, 1))
    assert case.in_memory
    assert not case.crops
    assert case.shares_cores
    assert case.title == "cifar_resnet8 on 1,437 images of digits, train"
    assert findings.bytes_per_image == 8 * 8 + 4 + 2 * 4  # pixels, label, place of the crop
    assert findings.reading.bytes_per_image == 64
    assert 1 in findings.decoding
    assert case.workers in findings.decoding
    assert findings.step.bytes_per_device is None or findings.step.bytes_per_device > 3000
    assert verdict(case, findings).limit in ("batches", "transfer", "step")


def test_reading_is_of_new_examples(config):
    subject = Subject.from_config(config)
    read = []

    class Noted(SlowSource):
        def __getitem__(self, index):
            read.append(index)
            return self._source[index]

    examine(dataclasses.replace(subject, source=Noted(subject.source)), seconds=0.01)
    # One batch that does not count and three that do, all of them of other images.
    assert len(read) >= 4 * 8
    assert len(set(read[: 4 * 8])) == 4 * 8


def test_a_case_knows_where_the_data_are(config):
    subject = Subject.from_config(config)
    case = case_of(subject)
    assert case.data_flags == f"--source folder --path {config.data.path}"
    assert (case.prepared, case.remote, case.crops) == (False, False, True)
    assert case.shorter_side == round(480 * 8 / 224)
    assert case.host_memory is None or case.host_memory > 10**8


def test_several_processes_are_measured_under_shard_map(config):
    class OneOfTwo:
        def rows(self, batch_size):
            return slice(0, batch_size // 2)

    subject = Subject.from_config(config)
    subject = dataclasses.replace(
        subject, run=dataclasses.replace(subject.run, replicas=OneOfTwo())
    )
    with pytest.raises(InputError, match=r"add --config\.parallel=shard_map$"):
        examine(subject, seconds=1.0)
