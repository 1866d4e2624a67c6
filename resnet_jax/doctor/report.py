"""The report of a run: its measurements, the part that limits it, and ways to make it faster."""

import textwrap
from collections.abc import Iterator
from typing import Literal

from resnet_jax.doctor.measure import Case, Findings

Limit = Literal["reading", "decoding", "batches", "transfer", "step"]

_CLOSE = 1.1  # times as many images/s is hardly more
_WIDTH = 96

_SUBJECTS: dict[Limit, str] = {
    "reading": "Reading limits: the input",
    "decoding": "Decoding limits: the input",
    "batches": "Putting batches together limits: the input",
    "transfer": "The transfer to the devices limits: it",
    "step": "The step limits: it",
}


def report(case: Case, findings: Findings) -> str:
    """Returns the measurements, the part that limits and the advice, at most a screen of it."""
    lines = [case.heading, "", f"{'':28}{'images/s':>10}"]
    for part, how, rate, *remarks in _rows(case, findings):
        remark = ", ".join(filter(None, remarks))
        lines.append(f"{part:12}{how:16}{_number(rate):>10}  {remark}".rstrip())
    lines += ["", *textwrap.wrap(verdict(case, findings), _WIDTH)]
    for sentence in advice(find_limit(case, findings), case, findings):
        # A command is to be copied, and so not broken at its hyphens.
        lines += textwrap.wrap(
            sentence,
            _WIDTH,
            initial_indent="- ",
            subsequent_indent="  ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    return "\n".join(lines)


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
    says = f"{_SUBJECTS[limit]} gives {_number(here)} images/s, and {name} "
    if other < _CLOSE * here:
        return says + f"hardly more ({_number(other)})."
    return says + f"could do {_number(other)}, {_number(other / here)} times as many."


def advice(limit: Limit, case: Case, findings: Findings) -> Iterator[str]:
    """Yields ways to make a run faster, each a sentence, the best first."""
    match limit:
        case "reading" | "decoding":
            yield from _input_advice(limit, case, findings)
        case "batches" if case.in_memory:
            yield (
                "The images are in memory, and only copying them is left; more processes, on "
                "machines of their own, share it."
            )
        case "batches":
            yield (
                "Reading and decoding are faster than this on their own; look for other programs "
                "that use this machine's cores and memory."
            )
        case "transfer":
            yield (
                f"An image is sent as {_size(findings.sent_bytes)} and the way to the devices "
                f"takes {_size(findings.transfer * findings.sent_bytes)}/s; smaller images "
                "(--config.data.image_size) are fewer bytes."
            )
        case "step" if case.shares_cores:
            yield (
                "The devices are this machine's own cores: an accelerator would help most; else "
                "smaller images (--config.data.image_size) or a smaller network."
            )
        case "step":
            yield from _step_advice(case, findings)
    if case.shares_cores:
        yield (
            "The input takes time from the devices, which are the same cores; so together the "
            "parts give less than the slowest of them alone."
        )
    elif findings.together < 0.75 * min(findings.batches, findings.transfer, findings.step):
        yield (
            "Together they give less than each alone: some batches come late, and "
            f"--config.prefetch={2 * case.prefetch} makes more of them ahead."
        )


def _input_advice(
    limit: Literal["reading", "decoding"], case: Case, findings: Findings
) -> Iterator[str]:
    height, width, channels = case.image_shape
    needed = case.examples * height * width * channels
    if not case.crops and needed <= case.host_memory / 2:
        yield (
            f"Keep the images in memory, where they take {_size(needed)} of "
            f"{_size(case.host_memory)}: --config.data.in_memory=True."
        )
    prepare = f"python -m resnet_jax prepare {case.data_flags} --out DIR"
    if limit == "decoding":
        rates = findings.decoding
        best = max(rates, key=lambda count: rates[count])
        if rates[best] > _CLOSE * rates[case.workers]:
            yield (
                f"Decode in {best} threads, which gives {_number(rates[best])} images/s: "
                f"--config.data.workers={best}."
            )
        yield (
            f"Shrink the images once, to what the crops need: {prepare} "
            f"--shorter_side {case.shorter_side}."
        )
        if best <= case.workers:
            yield "A machine with more cores, or more machines, would decode more."
        return
    if case.remote:
        yield "Copy the data to a disk of this machine; --config.data.path says where it is."
    if not case.prepared:
        yield f"Put the images into a few large files: {prepare}."
    if findings.read_seconds > 5e-3:  # a local disk takes less
        yield (
            f"An example takes {1000 * findings.read_seconds:.0f} ms to arrive; more threads "
            f"wait for several at a time: --config.data.workers={4 * case.workers}."
        )
    if case.prepared and not case.remote:
        yield "A faster disk would help, or more memory of this machine to cache the data."


def _step_advice(case: Case, findings: Findings) -> Iterator[str]:
    if case.dtype == "float32":
        yield "--config.dtype=bfloat16: accelerators multiply it faster, and it takes less memory."
    used, there = findings.step_bytes, findings.device_bytes
    if used is not None and there is not None and 2.2 * used < there:
        yield (
            f"The step takes {_size(used)} of {_size(there)} of a device: with "
            f"--config.batch_size={2 * case.batch_size} it has more to do at a time (the learning "
            "rate changes with the batch)."
        )
    yield "--config.profile='(100, 110)' records what the devices do, for TensorBoard."
    yield "More devices: each takes an equal share of the batch."


def _rows(case: Case, found: Findings) -> Iterator[tuple[str, str, float, *tuple[str, ...]]]:
    """Yields the part, how it works, its images/s and remarks, some of which are empty."""
    once = "once, before the first step" if case.in_memory else ""
    batch = f"{case.batch_size} images in "
    encoded, sent = found.encoded_bytes, found.sent_bytes
    read_rate, each = f"{_size(found.reading * encoded)}/s", f"{_size(encoded)} an image"
    yield "reading", _threads(case.workers), found.reading, read_rate, each, once
    for threads, rate in found.decoding.items():
        first = threads == 1
        times = "" if first else f"{rate / found.decoding[1]:.1f} times one thread"
        yield "decoding" if first else "", _threads(threads), rate, times, once
    how = "from memory" if case.in_memory else "read, decoded"
    yield "batches", how, found.batches, batch + _duration(case.batch_size / found.batches)
    sent_rate, each = f"{_size(found.transfer * sent)}/s", f"{_size(sent)} an image"
    yield "transfer", "", found.transfer, sent_rate, each
    duration = batch + _duration(case.batch_size / found.step)
    compiled = f"compiled in {_duration(found.compile_seconds)}"
    memory = "" if found.step_bytes is None else f"{_size(found.step_bytes)} a device"
    yield "step", "", found.step, duration, compiled, memory
    epoch = _duration(case.examples / found.together)
    yield "together", "", found.together, f"an epoch in {epoch}"


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _number(value: float) -> str:
    """Returns a number with three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _size(value: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{_number(value / factor)} {unit}"
    return f"{value:.0f} bytes"


def _duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{_number(1e6 * seconds)} µs"
    if seconds < 1:
        return f"{_number(1e3 * seconds)} ms"
    if seconds < 100:
        return f"{_number(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
