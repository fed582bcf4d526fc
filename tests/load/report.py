"""The report of one or more runs: a table in the terminal, JSON and a picture in a folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import report as bench_report
from tests.load.outcomes import Outcome
from tests.load.plots import draw_runs
from tests.load.summary import Objective, Percentiles, Summary, by_group, summarize

__all__ = ["Run", "Verdict", "new_folder", "show_runs", "show_verdicts", "write_report"]

REPORTS = Path(".orrery/load")
_MS = 1e3


@dataclass(frozen=True, slots=True)
class Run:
    """The outcomes of requests that arrived within `duration_s` seconds."""

    name: str
    duration_s: float
    outcomes: tuple[Outcome, ...]

    def summary(self, objective: Objective) -> Summary:
        return summarize(self.outcomes, self.duration_s, objective)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Something that should hold, and what was found."""

    claim: str
    holds: bool
    found: str


def new_folder(name: str) -> Path:
    """For the files of a report, named by what it is of and when."""
    folder = REPORTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def show_runs(console: Console, runs: Sequence[Run], objective: Objective) -> None:
    """Tables of rates, of latencies, and of what was refused or failed."""
    rows = [(name, summary) for run in runs for name, summary in _parts(run, objective)]
    console.print(_rates(rows))
    console.print(_latencies(rows))
    console.print(
        f"Times in ms, from the planned arrival. Good: first text within "
        f"{objective.first_s * _MS:.0f} ms and {objective.gap_s * _MS:.0f} ms between texts on "
        f"average; without a stream, the answer within {objective.total_s * _MS:.0f} ms."
    )


def show_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        mark = "[green]holds[/]" if verdict.holds else "[bold red]fails[/]"
        console.print(f"{mark}  {verdict.claim}: {verdict.found}")


def write_report(
    folder: Path,
    runs: Sequence[Run],
    objective: Objective,
    verdicts: Sequence[Verdict] = (),
    **facts: Any,
) -> None:
    """`report.json` and `report.png`. `facts`: what else belongs to the report."""
    content = {
        "command": sys.argv,
        "machine": bench_report.machine(),
        "objective": asdict(objective),
        **facts,
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "runs": [
            {
                "name": run.name,
                "duration_s": run.duration_s,
                "groups": {name: part.as_json() for name, part in _parts(run, objective)},
            }
            for run in runs
        ],
    }
    (folder / "report.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    draw_runs({run.name: run.outcomes for run in runs}, folder / "report.png")


def _parts(run: Run, objective: Objective) -> list[tuple[str, Summary]]:
    """The whole run, and its kinds and transports where there are several."""
    parts = [(run.name, run.summary(objective))]
    groups = by_group(run.outcomes)
    if len(groups) > 1:
        parts += [
            (f"  {name}", summarize(group, run.duration_s, objective))
            for name, group in groups.items()
        ]
    return parts


def _rates(rows: Sequence[tuple[str, Summary]]) -> Table:
    columns = ["requests", "asked", "ok", "refused", "failed", "asked/s", "ok/s", "good/s", "good"]
    cells = [
        [
            name,
            str(found.num_requests),
            str(found.num_ok),
            str(found.num_refused),
            _errors(found),
            f"{found.offered_rate:.1f}",
            f"{found.completed_rate:.1f}",
            f"{found.goodput_rate:.1f}",
            f"{found.goodput_share:.0%}" if found.num_requests else "",
        ]
        for name, found in rows
    ]
    return bench_report.table("Outcomes", columns, cells)


def _latencies(rows: Sequence[tuple[str, Summary]]) -> Table:
    columns = ["p50 / p90 / p99", "first text", "between texts", "whole", "refused", "sent late"]
    cells = [
        [
            name,
            *(
                _three(part)
                for part in (
                    found.first,
                    found.gap,
                    found.total,
                    found.refusals.latency,
                    found.lateness,
                )
            ),
        ]
        for name, found in rows
    ]
    return bench_report.table("Latency", columns, cells)


def _errors(found: Summary) -> str:
    return ", ".join(f"{num} {name}" for name, num in sorted(found.errors.items())) or "0"


def _three(found: Percentiles) -> str:
    if not found.count:
        return ""
    return " / ".join(f"{_MS * value:.0f}" for value in (found.p50, found.p90, found.p99))
