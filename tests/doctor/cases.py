"""A run and its measurements, to be changed."""

import dataclasses

from resnet_jax.doctor import Case, Findings

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
