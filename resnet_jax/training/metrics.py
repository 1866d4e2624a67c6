"""`metrics.jsonl`: what a run measured, one JSON object a line."""

import json
import math
from collections.abc import Mapping
from numbers import Integral
from typing import NoReturn, TypeAlias

from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.files import GrowingFile, write_atomically

Row: TypeAlias = dict[str, int | float | str]
"""`step`, `split`, and the values by name."""

# Strict JSON has no such numbers; these strings are what protobuf's JSON writes for them.
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricsLog:
    """The log of a run, which an interruption leaves no trace in.

    A run that was killed and started again ends with the bytes of one never interrupted, so only
    what is the same in every such run may be written: no times, no speeds. A number that is not
    finite is written as one of the strings "NaN", "Infinity" and "-Infinity".

    A line is written whole and at once, in an object store at `sync`, `rows` and `close`.
    """

    def __init__(self, path: epath.PathLike, *, resume_step: int) -> None:
        """Opens the log, or makes it.

        Args:
          path: The file.
          resume_step: The step that the run goes on from. The lines of later steps are removed,
            they will be written again; so is a last line that was cut off.

        Raises:
          InputError: A line is not one of a log. The file stays as it is.
        """
        self._path = epath.Path(path)
        before = self._path.read_bytes() if self._path.exists() else b""
        lines = _parse(before, self._path)
        after = b"".join(line + b"\n" for line, row in lines if _step(row) <= resume_step)
        if after != before:
            write_atomically(self._path, after)
        self._file = GrowingFile(self._path)

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends a line.

        Args:
          step: The training step that it is of.
          split: What was measured on: "train", "test", ...
          values: Finite or not; integers stay integers.
        """
        row = {"step": step, "split": split} | {k: _encoded(v) for k, v in values.items()}
        line = json.dumps(row, allow_nan=False, ensure_ascii=False)
        self._file.write(line.encode() + b"\n")

    def rows(self) -> list[Row]:
        """Returns what was written, in its order, by this run and those it goes on from."""
        self.sync()
        return read_rows(self._path)

    def sync(self) -> None:
        """Makes the lines outlive the machine, before a checkpoint that is after them."""
        self._file.sync()

    def close(self) -> None:
        """Makes the lines durable and closes the file."""
        self._file.close()


def read_rows(path: epath.PathLike) -> list[Row]:
    """Returns the rows of a log, without a last one that was cut off.

    Raises:
      InputError: A line is not one of a log.
    """
    path = epath.Path(path)
    return [row for _, row in _parse(path.read_bytes(), path)]


def _parse(content: bytes, path: epath.Path) -> list[tuple[bytes, Row]]:
    *lines, last = content.split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append((line, _row(line)))
        except ValueError as error:
            raise InputError(
                f"line {number} of {path} is not one of a log ({error}); repair or remove that line"
            ) from error
    try:
        # Only its end is missing from a line that was cut off, so that it is no JSON object: one
        # that is has lost no more than its newline.
        return [*rows, (last, _row(last))]
    except ValueError:
        return rows


def _row(line: bytes) -> Row:
    row = json.loads(line, parse_constant=_refuse)
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    step, split = row.get("step"), row.get("split")
    if not isinstance(step, int) or isinstance(step, bool) or not isinstance(split, str):
        raise ValueError('no "step" and "split"')
    return {k: _NON_FINITE.get(v, v) if isinstance(v, str) else v for k, v in row.items()}


def _step(row: Row) -> int:
    return int(row["step"])


def _encoded(value: float) -> int | float | str:
    if isinstance(value, Integral):
        return int(value)
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
