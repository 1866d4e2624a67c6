"""The measurements, the verdict and the advice on one screen."""

import textwrap
from collections.abc import Iterator

from resnet_jax.doctor.advice import advice, find_limit, number, size, verdict
from resnet_jax.doctor.findings import Case, Findings

_WIDTH = 96


def report(case: Case, findings: Findings) -> str:
    """Returns the measurements, the part that limits and the advice, at most a screen of it."""
    lines = [case.heading, "", f"{'':28}{'images/s':>10}"]
    for part, how, rate, *remarks in _rows(case, findings):
        remark = ", ".join(filter(None, remarks))
        lines.append(f"{part:12}{how:16}{number(rate):>10}  {remark}".rstrip())
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


def _rows(case: Case, found: Findings) -> Iterator[tuple[str, str, float, *tuple[str, ...]]]:
    """Yields the part, how it works, its images/s and remarks, some of which are empty."""
    once = "once, before the first step" if case.in_memory else ""
    batch = f"{case.batch_size} images in "
    yield (
        "reading",
        _threads(case.workers),
        found.reading,
        f"{size(found.reading * found.encoded_bytes)}/s",
        f"{size(found.encoded_bytes)} an image",
        once,
    )
    one = found.decoding[1]
    for threads, rate in found.decoding.items():
        times = "" if threads == 1 else f"{rate / one:.1f} times one thread"
        yield "decoding" if threads == 1 else "", _threads(threads), rate, times, once
    how = "from memory" if case.in_memory else "read, decoded"
    yield "batches", how, found.batches, batch + _duration(case.batch_size / found.batches)
    yield (
        "transfer",
        "",
        found.transfer,
        f"{size(found.transfer * found.sent_bytes)}/s",
        f"{size(found.sent_bytes)} an image",
    )
    yield (
        "step",
        "",
        found.step,
        batch + _duration(case.batch_size / found.step),
        f"compiled in {_duration(found.compile_seconds)}",
        "" if found.step_bytes is None else f"{size(found.step_bytes)} a device",
    )
    epoch = _duration(case.examples / found.together)
    yield "together", "", found.together, f"an epoch in {epoch}"


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{number(1e6 * seconds)} µs"
    if seconds < 1:
        return f"{number(1e3 * seconds)} ms"
    if seconds < 100:
        return f"{number(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
