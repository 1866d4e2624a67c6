"""What to do about the part that limits a run."""

from collections.abc import Iterator

from resnet_jax.doctor.findings import Case, Findings
from resnet_jax.doctor.verdict import Limit, expected_together, number

_PREPARE = "python -m resnet_jax prepare"
_GIGABYTE = 1e9

_SLOW_ANSWER = 5e-3  # seconds to an example; a local disk takes less
_MOST_OF_MEMORY = 0.5  # that images in memory may take of this machine's
_BATCH_HEADROOM = 2.2  # times the memory of a step that one of twice the batch takes at most
_TOO_LITTLE = 0.75  # of what the parts together should give


def advice(limit: Limit, case: Case, findings: Findings) -> tuple[str, ...]:
    """Returns what to do, each in a sentence, what helps most first."""
    parts = {
        "reading": _reading,
        "decoding": _decoding,
        "batches": _batches,
        "transfer": _transfer,
        "step": _step,
    }
    return (*parts[limit](case, findings), *_together(case, findings))


def _reading(case: Case, findings: Findings) -> Iterator[str]:
    yield from _in_memory(case)
    if case.remote:
        yield "Copy the data to a disk of this machine; --config.data.path says where it is."
    if not case.prepared:
        yield f"Put the images into a few large files: {_prepare(case)}."
    if findings.reading.seconds > _SLOW_ANSWER:
        yield (
            f"An example takes {1000 * findings.reading.seconds:.0f} ms to arrive; more threads "
            f"wait for several at a time: --config.data.workers={4 * case.workers}."
        )
    if case.prepared and not case.remote:
        yield "A faster disk, or more memory of this machine for what was read before, would help."


def _decoding(case: Case, findings: Findings) -> Iterator[str]:
    yield from _in_memory(case)
    here = findings.decoding[case.workers]
    best = max(findings.decoding, key=lambda count: findings.decoding[count])
    if findings.decoding[best] > 1.1 * here:
        yield (
            f"Decode in {best} threads, which gives {number(findings.decoding[best])} images/s: "
            f"--config.data.workers={best}."
        )
    yield (
        f"Shrink the images once, to what the crops need: {_prepare(case)} "
        f"--shorter_side {case.shorter_side}."
    )
    if best <= case.workers:
        yield "A machine with more cores, or more machines, would decode more."


def _batches(case: Case, findings: Findings) -> Iterator[str]:
    yield (
        "The images are in memory, and only copying them is left; more processes, on machines of "
        "their own, share it."
        if case.in_memory
        else "Reading and decoding are faster than this on their own; look for what else uses this "
        "machine's cores and memory."
    )


def _transfer(case: Case, findings: Findings) -> Iterator[str]:
    rate = findings.transfer * findings.bytes_per_image / _GIGABYTE
    yield (
        f"An image is sent as {findings.bytes_per_image / 1000:,.0f} kB and the way to the devices "
        f"takes {rate:.2g} GB/s; smaller images (--config.data.image_size) are fewer bytes."
    )


def _step(case: Case, findings: Findings) -> Iterator[str]:
    if case.shares_cores:
        yield (
            "The devices are this machine's own cores: an accelerator would help most; else "
            "smaller images (--config.data.image_size) or a smaller network."
        )
        return
    if case.dtype == "float32":
        yield "--config.dtype=bfloat16: accelerators multiply it faster, and it takes less memory."
    used, there = findings.step.bytes_per_device, findings.step.bytes_of_device
    if used is not None and there is not None and _BATCH_HEADROOM * used < there:
        yield (
            f"The step takes {_gigabytes(used)} of {_gigabytes(there)} of a device: with "
            f"--config.batch_size={2 * case.batch_size} it has more to do at a time (the learning "
            "rate changes with the batch)."
        )
    yield "--config.profile='(100, 110)' records what the devices do, for TensorBoard."
    yield "More devices: each takes an equal share of the batch."


def _together(case: Case, findings: Findings) -> Iterator[str]:
    if case.shares_cores:
        yield (
            "What makes the batches takes time from the devices, which are the same cores; so "
            "together the parts give less than the slowest of them alone."
        )
    elif findings.together < _TOO_LITTLE * expected_together(case, findings):
        yield (
            "Together they give less than each alone: some batches come late, and "
            f"--config.prefetch={2 * case.prefetch} makes more of them ahead."
        )


def _in_memory(case: Case) -> Iterator[str]:
    height, width, channels = case.image_shape
    size = case.examples * height * width * channels
    if case.crops or case.host_memory is None or size > _MOST_OF_MEMORY * case.host_memory:
        return
    yield (
        f"Keep the images in memory, where they take {_gigabytes(size)} of "
        f"{_gigabytes(case.host_memory)}: --config.data.in_memory=True."
    )


def _prepare(case: Case) -> str:
    return f"{_PREPARE} {case.data_flags} --out DIR"


def _gigabytes(size: float) -> str:
    return f"{number(size / _GIGABYTE)} GB"
