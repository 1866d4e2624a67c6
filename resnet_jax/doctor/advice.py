"""The part that limits a run, by how much, and ways to make it faster."""

from collections.abc import Iterator
from typing import Literal

from resnet_jax.doctor.findings import Case, Findings

Limit = Literal["reading", "decoding", "batches", "transfer", "step"]

_CLOSE = 1.1  # times as many images/s is hardly more
_SLOW_READ = 5e-3  # seconds to an example; a local disk takes less
_MOST_OF_MEMORY = 0.5  # of this machine's, for images
_BATCH_HEADROOM = 2.2  # times the memory of a step is enough for twice its batch
_TOO_LITTLE = 0.75  # of the rate that the parts should have together

_SUBJECTS: dict[Limit, str] = {
    "reading": "Reading limits: the input",
    "decoding": "Decoding limits: the input",
    "batches": "Putting batches together limits: the input",
    "transfer": "The transfer to the devices limits: it",
    "step": "The step limits: it",
}


def find_limit(case: Case, findings: Findings) -> Limit:
    """Returns the part that gives the fewest images/s."""
    if findings.step <= min(findings.batches, findings.transfer):
        return "step"
    if findings.transfer <= findings.batches:
        return "transfer"
    reading, decoding = findings.reading, findings.decoding[case.workers]
    # Neither is to blame if the two, one after the other, are much faster than the whole.
    if case.in_memory or 1 / (1 / reading + 1 / decoding) > 2 * findings.batches:
        return "batches"
    return "reading" if reading < decoding else "decoding"


def verdict(case: Case, findings: Findings) -> str:
    """Returns a sentence that says which part limits, and by how much."""
    limit = find_limit(case, findings)
    here, other, name = findings.batches, findings.step, "the step"
    if limit == "transfer":
        here = findings.transfer
    elif limit == "step":
        here, other, name = findings.step, findings.batches, "the input"
    says = f"{_SUBJECTS[limit]} gives {number(here)} images/s, and {name} "
    if other < _CLOSE * here:
        return says + f"hardly more ({number(other)})."
    return says + f"could do {number(other)}, {number(other / here)} times as many."


def advice(limit: Limit, case: Case, findings: Findings) -> tuple[str, ...]:
    """Returns ways to make a run faster, each a sentence, the best first."""
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
    if findings.read_seconds > _SLOW_READ:
        yield (
            f"An example takes {1000 * findings.read_seconds:.0f} ms to arrive; more threads "
            f"wait for several at a time: --config.data.workers={4 * case.workers}."
        )
    if case.prepared and not case.remote:
        yield "A faster disk would help, or more memory of this machine to cache the data."


def _decoding(case: Case, findings: Findings) -> Iterator[str]:
    yield from _in_memory(case)
    rates = findings.decoding
    best = max(rates, key=lambda count: rates[count])
    if rates[best] > _CLOSE * rates[case.workers]:
        yield (
            f"Decode in {best} threads, which gives {number(rates[best])} images/s: "
            f"--config.data.workers={best}."
        )
    yield (
        f"Shrink the images once, to what the crops need: {_prepare(case)} "
        f"--shorter_side {case.shorter_side}."
    )
    if best <= case.workers:
        yield "A machine with more cores, or more machines, would decode more."


def _batches(case: Case, findings: Findings) -> Iterator[str]:
    if case.in_memory:
        yield (
            "The images are in memory, and only copying them is left; more processes, on machines "
            "of their own, share it."
        )
    else:
        yield (
            "Reading and decoding are faster than this on their own; look for other programs that "
            "use this machine's cores and memory."
        )


def _transfer(case: Case, findings: Findings) -> Iterator[str]:
    yield (
        f"An image is sent as {size(findings.sent_bytes)} and the way to the devices takes "
        f"{size(findings.transfer * findings.sent_bytes)}/s; smaller images "
        "(--config.data.image_size) are fewer bytes."
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
    used, there = findings.step_bytes, findings.device_bytes
    if used is not None and there is not None and _BATCH_HEADROOM * used < there:
        yield (
            f"The step takes {size(used)} of {size(there)} of a device: with "
            f"--config.batch_size={2 * case.batch_size} it has more to do at a time (the learning "
            "rate changes with the batch)."
        )
    yield "--config.profile='(100, 110)' records what the devices do, for TensorBoard."
    yield "More devices: each takes an equal share of the batch."


def _together(case: Case, findings: Findings) -> Iterator[str]:
    if case.shares_cores:
        yield (
            "The input takes time from the devices, which are the same cores; so together the "
            "parts give less than the slowest of them alone."
        )
    elif findings.together < _TOO_LITTLE * min(findings.batches, findings.transfer, findings.step):
        yield (
            "Together they give less than each alone: some batches come late, and "
            f"--config.prefetch={2 * case.prefetch} makes more of them ahead."
        )


def _in_memory(case: Case) -> Iterator[str]:
    height, width, channels = case.image_shape
    needed = case.examples * height * width * channels
    if not case.crops and needed <= _MOST_OF_MEMORY * case.host_memory:
        yield (
            f"Keep the images in memory, where they take {size(needed)} of "
            f"{size(case.host_memory)}: --config.data.in_memory=True."
        )


def _prepare(case: Case) -> str:
    return f"python -m resnet_jax prepare {case.data_flags} --out DIR"


def number(value: float) -> str:
    """Returns a number with three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def size(value: float) -> str:
    """Returns a number of bytes with its unit."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{number(value / factor)} {unit}"
    return f"{value:.0f} bytes"
