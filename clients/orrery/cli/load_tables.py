"""What came of a load test, as tables: rates, latencies, what was refused or failed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orrery.cli.tables import new_table
from orrery.load.report import Run, parts
from orrery.load.summary import Objective, Percentiles, Summary

__all__ = ["print_runs"]

_MS = 1e3
_RATES = ("ASKED", "OK", "REFUSED", "FAILED", "ASKED/S", "OK/S", "GOOD/S", "GOOD")
_LATENCIES = ("FIRST TEXT", "BETWEEN TEXTS", "WHOLE", "REFUSED", "SENT LATE")

_Rows = Sequence[tuple[str, Summary]]


def print_runs(console: Console, runs: Sequence[Run], objective: Objective) -> None:
    """Two tables, a line for each run and for its kinds and transports, and how to read them."""
    rows = [row for run in runs for row in parts(run, objective)]
    console.print(_rates(rows))
    console.print()
    console.print(_latencies(rows))
    console.print()
    console.print(
        f"Times in ms, p50 / p90 / p99, from the planned arrival. Good: first text within "
        f"{objective.first_s * _MS:.0f} ms and {objective.gap_s * _MS:.0f} ms between texts on "
        f"average; without a stream, the answer within {objective.total_s * _MS:.0f} ms.",
        highlight=False,
    )


def _rates(rows: _Rows) -> Table:
    table = new_table("REQUESTS", *_RATES, numbers=_RATES)
    for name, found in rows:
        table.add_row(
            Text(name),
            str(found.num_requests),
            str(found.num_ok),
            str(found.num_refused),
            Text(_errors(found)),
            f"{found.offered_rate:.1f}",
            f"{found.completed_rate:.1f}",
            f"{found.goodput_rate:.1f}",
            f"{found.goodput_share:.0%}" if found.num_requests else "-",
        )
    return table


def _latencies(rows: _Rows) -> Table:
    table = new_table("LATENCY", *_LATENCIES, numbers=_LATENCIES)
    for name, found in rows:
        told = (found.first, found.gap, found.total, found.refusals.latency, found.lateness)
        table.add_row(Text(name), *map(_three, told))
    return table


def _errors(found: Summary) -> str:
    return ", ".join(f"{num} {name}" for name, num in sorted(found.errors.items())) or "0"


def _three(found: Percentiles) -> str:
    if not found.count:
        return "-"
    return " / ".join(f"{_MS * value:.0f}" for value in (found.p50, found.p90, found.p99))
