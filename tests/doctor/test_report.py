"""The verdict, the advice and the report of measurements."""

import dataclasses

import pytest

from resnet_jax.doctor import Case, Findings, report
from resnet_jax.doctor.report import advice, find_limit, verdict

CASE = Case(
    heading="resnet50 on 1,281,167 images of imagenet2012, train\n8 x TPU v4 (pmap); 96 cores",
    examples=1_281_167,
    batch_size=256,
    image_shape=(224, 224, 3),
    dtype="float32",
    in_memory=False,
    crops=True,
    prepared=False,
    data_flags="--source folder --path /data",
    shorter_side=480,
    remote=False,
    workers=2,
    prefetch=2,
    shares_cores=False,
    host_memory=64 * 10**9,
)

FINDINGS = Findings(
    reading=5000,
    encoded_bytes=110_000,
    read_seconds=4e-4,
    decoding={1: 400, 2: 750, 4: 1480},
    batches=700,
    transfer=20_000,
    sent_bytes=150_540,
    step=2500,
    compile_seconds=31.4,
    step_bytes=6 * 10**9,
    device_bytes=32 * 10**9,
    together=690,
)


def case(**changes):
    return dataclasses.replace(CASE, **changes)


def findings(**changes):
    return dataclasses.replace(FINDINGS, **changes)


@pytest.mark.parametrize(
    ("limit", "run", "found"),
    [
        ("decoding", case(), findings()),
        ("reading", case(), findings(reading=600.0, batches=330)),
        ("batches", case(), findings(batches=100)),  # though both are faster than twice as much
        ("batches", case(in_memory=True), findings()),
        ("transfer", case(), findings(transfer=300)),
        ("step", case(), findings(step=300.0)),
    ],
)
def test_the_part_with_the_fewest_images_limits(limit, run, found):
    assert find_limit(run, found) == limit


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (
            findings(),
            "Decoding limits: the input gives 700 images/s, and the step could do 2,500, 3.57 "
            "times as many.",
        ),
        (
            findings(reading=600.0, batches=330.0, step=340.0),
            "Reading limits: the input gives 330 images/s, and the step hardly more (340).",
        ),
        (
            findings(step=2.5),
            "The step limits: it gives 2.5 images/s, and the input could do 700, 280 times as "
            "many.",
        ),
        (
            findings(transfer=350.0),
            "The transfer to the devices limits: it gives 350 images/s, and the step could do "
            "2,500, 7.14 times as many.",
        ),
    ],
)
def test_says_by_how_much(found, says):
    assert verdict(CASE, found) == says


@pytest.mark.parametrize(
    ("limit", "run", "found", "first"),
    [
        ("reading", case(), findings(), "Put the images into a few large files: python -m resnet"),
        ("reading", case(crops=False), findings(), "Put the images into a few large files"),
        ("reading", case(remote=True), findings(), "Copy the data to a disk of this machine"),
        (
            "reading",
            case(prepared=True),
            findings(read_seconds=0.02),
            "An example takes 20 ms to arrive; more threads wait for several at a time: "
            "--config.data.workers=8.",
        ),
        ("reading", case(prepared=True), findings(), "A faster disk would help, or more memory"),
        (
            "decoding",
            case(),
            findings(),
            "Decode in 4 threads, which gives 1,480 images/s: --config.data.workers=4.",
        ),
        (
            "decoding",
            case(workers=4),
            findings(),
            "Shrink the images once, to what the crops need: python -m resnet_jax prepare "
            "--source folder --path /data --out DIR --shorter_side 480.",
        ),
        (
            "decoding",
            case(crops=False, examples=50_000, image_shape=(32, 32, 3)),
            findings(),
            "Keep the images in memory, where they take 154 MB of 64 GB: "
            "--config.data.in_memory=True.",
        ),
        ("batches", case(in_memory=True), findings(), "The images are in memory, and only copying"),
        ("batches", case(), findings(), "Reading and decoding are faster than this on their own"),
        (
            "transfer",
            case(),
            findings(transfer=10_000),
            "An image is sent as 151 kB and the way to the devices takes 1.51 GB/s",
        ),
        ("step", case(), findings(), "--config.dtype=bfloat16: accelerators multiply it faster"),
        (
            "step",
            case(dtype="bfloat16"),
            findings(),
            "The step takes 6 GB of 32 GB of a device: with --config.batch_size=512 it has more",
        ),
        ("step", case(shares_cores=True), findings(), "The devices are this machine's own cores"),
    ],
)
def test_says_what_to_do(limit, run, found, first):
    sentences = list(advice(limit, run, found))
    assert sentences[0].startswith(first)
    assert all(sentence.endswith(".") for sentence in sentences)


def test_images_that_do_not_fit_are_not_kept_in_memory():
    for run in (case(crops=False), case(examples=10)):
        assert not [s for s in advice("decoding", run, FINDINGS) if "in_memory" in s]


def test_a_full_device_gets_no_larger_batch():
    for used, there in ((20 * 10**9, 32 * 10**9), (None, 32 * 10**9), (6 * 10**9, None)):
        found = findings(step_bytes=used, device_bytes=there)
        assert not [s for s in advice("step", CASE, found) if "batch_size" in s]


def test_what_comes_late_is_made_ahead_and_cores_that_are_shared_explain_it():
    late = findings(together=300)
    assert "--config.prefetch=4" in list(advice("decoding", case(), late))[-1]
    assert not [s for s in advice("decoding", case(), findings()) if "prefetch" in s]
    assert "the same cores" in list(advice("decoding", case(shares_cores=True), late))[-1]


def test_everything_is_on_one_screen():
    assert report(CASE, FINDINGS).splitlines() == [
        "resnet50 on 1,281,167 images of imagenet2012, train",
        "8 x TPU v4 (pmap); 96 cores",
        "",
        "                              images/s",
        "reading     2 threads            5,000  550 MB/s, 110 kB an image",
        "decoding    1 thread               400",
        "            2 threads              750  1.9 times one thread",
        "            4 threads            1,480  3.7 times one thread",
        "batches     read, decoded          700  256 images in 366 ms",
        "transfer                        20,000  3.01 GB/s, 151 kB an image",
        "step                             2,500  256 images in 102 ms, compiled in 31.4 s, 6 GB a "
        "device",
        "together                           690  an epoch in 31 min",
        "",
        "Decoding limits: the input gives 700 images/s, and the step could do 2,500, 3.57 times as "
        "many.",
        "- Decode in 4 threads, which gives 1,480 images/s: --config.data.workers=4.",
        "- Shrink the images once, to what the crops need: python -m resnet_jax prepare --source "
        "folder",
        "  --path /data --out DIR --shorter_side 480.",
    ]


def test_what_is_in_memory_is_read_once():
    run = case(in_memory=True, examples=50, batch_size=10)
    found = findings(batches=2e6, together=0.005)
    text = report(run, found)
    assert "110 kB an image, once, before the first step" in text
    assert "1.9 times one thread, once, before the first step" in text
    assert "batches     from memory      2,000,000  10 images in 5 µs" in text
    assert "together                         0.005  an epoch in 2 h 47 min" in text


def test_a_full_screen_is_not_wider_than_a_terminal():
    for run in (CASE, case(shares_cores=True, in_memory=True), case(remote=True, crops=False)):
        for found in (FINDINGS, findings(reading=10.0, batches=9, read_seconds=0.1)):
            lines = report(run, found).splitlines()
            assert max(map(len, lines)) <= 100
            assert len(lines) <= 30
