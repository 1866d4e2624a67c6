"""The findings on one screen."""

import textwrap
from collections.abc import Iterator

from resnet_jax.doctor.advice import advice
from resnet_jax.doctor.findings import Case, Findings
from resnet_jax.doctor.verdict import number, verdict

_WIDTH = 96


def screen(case: Case, findings: Findings) -> str:
    """Returns what was measured, what limits and what to do, at most a screen of it."""
    judged = verdict(case, findings)
    lines = [case.title, case.machine, case.versions, ""]
    lines += [f"{'':28}{'images/s':>10}"]
    lines += [
        f"{part:12}{how:16}{number(rate):>10}  {remark}".rstrip()
        for part, how, rate, remark in _rows(case, findings)
    ]
    lines += ["", *textwrap.wrap(judged.says, _WIDTH)]
    for sentence in advice(judged.limit, case, findings):
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


def _rows(case: Case, findings: Findings) -> Iterator[tuple[str, str, float, str]]:
    reading, step = findings.reading, findings.step
    once = "once, before the first step" if case.in_memory else ""
    yield (
        "reading",
        _threads(case.workers),
        reading.images_per_second,
        _remark(
            f"{_bytes(reading.images_per_second * reading.bytes_per_image)}/s",
            f"{_bytes(reading.bytes_per_image)} an image",
            once,
        ),
    )
    one = findings.decoding[min(findings.decoding)]
    for threads, rate in findings.decoding.items():
        times = "" if threads == 1 else f"{rate / one:.1f} times one thread"
        name = "decoding" if threads == 1 else ""
        yield name, _threads(threads), rate, _remark(times, once)
    yield (
        "batches",
        "from memory" if case.in_memory else "read, decoded",
        findings.batches,
        f"{case.batch_size} images in {_duration(case.batch_size / findings.batches)}",
    )
    yield (
        "transfer",
        "",
        findings.transfer,
        _remark(
            f"{_bytes(findings.transfer * findings.bytes_per_image)}/s",
            f"{_bytes(findings.bytes_per_image)} an image",
        ),
    )
    memory = step.bytes_per_device
    yield (
        "step",
        "",
        step.images_per_second,
        _remark(
            f"{case.batch_size} images in {_duration(case.batch_size / step.images_per_second)}",
            f"compiled in {_duration(step.compile_seconds)}",
            "" if memory is None else f"{_bytes(memory)} a device",
        ),
    )
    yield (
        "together",
        "",
        findings.together,
        f"an epoch in {_duration(case.examples / findings.together)}",
    )


def _remark(*texts: str) -> str:
    return ", ".join(text for text in texts if text)


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _bytes(size: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{number(size / factor)} {unit}"
    return f"{size:.0f} bytes"


def _duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{number(1e6 * seconds)} µs"
    if seconds < 1:
        return f"{number(1e3 * seconds)} ms"
    if seconds < 100:
        return f"{number(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
