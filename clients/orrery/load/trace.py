"""Traces: requests as they once came, in a CSV file.

    timestamp,prompt_tokens,output_tokens
    0.000,212,64

`timestamp` is in seconds, not before the line above it; the others count tokens, at least one. A
file that is not so is refused by line and field. `synthesize` makes one up: a rate that rises and
falls, lengths with a long tail, as those of chats have.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from orrery.load.asks import Size

__all__ = ["COLUMNS", "TraceError", "TraceRow", "read_trace", "synthesize", "write_trace"]

COLUMNS = ("timestamp", "prompt_tokens", "output_tokens")
_PERIOD_S = 30.0  # from one crest of the rate to the next
_MAX_TOKENS = 1 << 20


class TraceError(ValueError):
    """A file that is no trace; `line` counts from 1, `field` is a column, or empty."""

    def __init__(self, path: Path, line: int, field: str, expected: str) -> None:
        where = f"{path}:{line}" + (f", {field}" if field else "")
        super().__init__(f"{where}: expected {expected}")
        self.line = line
        self.field = field


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request: when it came, and how long its prompt and its answer were."""

    timestamp_s: float
    size: Size


def read_trace(path: Path, max_total_tokens: int | None = None) -> list[TraceRow]:
    """All rows. `max_total_tokens` is the context of the model that is to serve them.

    Raises `TraceError` for what is wrong first, `OSError` where the file cannot be read.
    """
    rows: list[TraceRow] = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = csv.reader(file, strict=True)
        try:
            for number, cells in enumerate(lines, start=1):
                if number == 1:
                    _check_header(path, cells)
                elif cells:
                    row = _parse(path, number, cells, rows[-1] if rows else None)
                    _check_context(path, number, row, max_total_tokens)
                    rows.append(row)
        except csv.Error as error:
            raise TraceError(path, lines.line_num, "", f"CSV ({error})") from error
    if not rows:
        raise TraceError(path, 1, "", f"the header {','.join(COLUMNS)} and at least one row")
    return rows


def write_trace(path: Path, rows: Iterable[TraceRow]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            size = row.size
            writer.writerow([f"{row.timestamp_s:.3f}", size.prompt_tokens, size.output_tokens])


def synthesize(
    rate: float, duration_s: float, seed: int, max_total_tokens: int = 512
) -> list[TraceRow]:
    """A made-up trace with a mean of `rate` requests a second; the same for the same seed.

    The rate swings by 60 % around its mean: arrivals of the crest's rate, thinned (Lewis and
    Shedler 1979). Lengths are log-normal, cut so that prompt and output fit the context.
    """
    rng = Random(seed)
    crest = 1.6 * rate
    rows = []
    at_s = rng.expovariate(crest)
    while at_s < duration_s:
        now = rate * (1 + 0.6 * math.sin(2 * math.pi * at_s / _PERIOD_S))
        if rng.random() < now / crest:
            prompt = _length(rng, median=80, spread=0.7, most=max_total_tokens * 3 // 4)
            output = _length(rng, median=32, spread=0.6, most=max_total_tokens - prompt)
            rows.append(TraceRow(round(at_s, 3), Size(prompt, output)))
        at_s += rng.expovariate(crest)
    return rows


def _length(rng: Random, *, median: float, spread: float, most: int) -> int:
    return max(1, min(most, round(median * math.exp(rng.gauss(0.0, spread)))))


def _check_header(path: Path, cells: list[str]) -> None:
    if tuple(cell.strip() for cell in cells) != COLUMNS:
        raise TraceError(path, 1, "", f"the header {','.join(COLUMNS)}, got {','.join(cells)!r}")


def _parse(path: Path, line: int, cells: list[str], before: TraceRow | None) -> TraceRow:
    if len(cells) != len(COLUMNS):
        raise TraceError(path, line, "", f"{len(COLUMNS)} fields, got {len(cells)}")
    timestamp_s = _number(path, line, cells[0])
    if before is not None and timestamp_s < before.timestamp_s:
        expected = f"a time not before {before.timestamp_s:g}, got {timestamp_s:g}"
        raise TraceError(path, line, "timestamp", expected)
    prompt, output = (
        _count(path, line, field, cell) for field, cell in zip(COLUMNS[1:], cells[1:], strict=True)
    )
    return TraceRow(timestamp_s, Size(prompt, output))


def _number(path: Path, line: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise TraceError(path, line, "timestamp", f"seconds, 0 or more, got {cell!r}")
    return value


def _count(path: Path, line: int, field: str, cell: str) -> int:
    try:
        value = int(cell)
    except ValueError:
        value = 0
    if not 1 <= value <= _MAX_TOKENS:
        expected = f"a whole number from 1 to {_MAX_TOKENS}, got {cell!r}"
        raise TraceError(path, line, field, expected)
    return value


def _check_context(path: Path, line: int, row: TraceRow, most: int | None) -> None:
    total = row.size.prompt_tokens + row.size.output_tokens
    if most is not None and total > most:
        expected = f"prompt and output of at most {most} tokens, the model's context, got {total}"
        raise TraceError(path, line, "output_tokens", expected)
