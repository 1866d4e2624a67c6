"""Which part limits a run, and by how much."""

from typing import Literal, NamedTuple

from resnet_jax.doctor.findings import Case, Findings

Limit = Literal["reading", "decoding", "batches", "transfer", "step"]

_CLOSE = 1.1  # times as many images/s is no more than the same

_SUBJECTS: dict[Limit, str] = {
    "reading": "Reading limits: the input",
    "decoding": "Decoding limits: the input",
    "batches": "Putting batches together limits: the input",
    "transfer": "The transfer to the devices limits: it",
    "step": "The step limits: it",
}


class Verdict(NamedTuple):
    """What the findings mean.

    Attributes:
      limit: The part that gives the fewest images/s.
      says: What limits, and by how much, in a sentence.
    """

    limit: Limit
    says: str


def verdict(case: Case, findings: Findings) -> Verdict:
    """Returns which part limits a run."""
    part_of_input = _part_of_input(case, findings)
    rates: dict[Limit, float] = {
        part_of_input: findings.batches,
        "transfer": findings.transfer,
        "step": findings.step.images_per_second,
    }
    limit = min(rates, key=lambda part: rates[part])
    other, its_name = (part_of_input, "the input") if limit == "step" else ("step", "the step")
    ratio = rates[other] / rates[limit]
    says = f"{_SUBJECTS[limit]} gives {number(rates[limit])} images/s, and {its_name} "
    if ratio < _CLOSE:
        says += f"hardly more ({number(rates[other])})."
    else:
        says += f"could do {number(rates[other])}, {number(ratio)} times as many."
    return Verdict(limit, says)


def expected_together(case: Case, findings: Findings) -> float:
    """Returns how many images/s the parts should give together."""
    step = findings.step.images_per_second
    if case.shares_cores:
        return 1 / (1 / findings.batches + 1 / step)
    return min(findings.batches, findings.transfer, step)


def number(value: float) -> str:
    """Returns a number with as many digits as mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _part_of_input(case: Case, findings: Findings) -> Limit:
    if case.in_memory:
        return "batches"
    reading, decoding = findings.reading.images_per_second, findings.decoding[case.workers]
    # Neither is to blame where the two, one after the other, are much faster than the whole.
    if 1 / (1 / reading + 1 / decoding) > 2 * findings.batches:
        return "batches"
    return "reading" if reading < decoding else "decoding"
