"""The report of one or more runs: JSON and a picture in a folder. Knows nothing of terminals."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orrery.load.outcomes import Outcome
from orrery.load.summary import Objective, Summary, by_group, summarize
from orrery.plots.load import plot_load

__all__ = ["JSON_FILE", "PICTURE_FILE", "Run", "parts", "report_of", "write_report"]

JSON_FILE = "report.json"
PICTURE_FILE = "report.png"


@dataclass(frozen=True, slots=True)
class Run:
    """The outcomes of requests that arrived within `duration_s` seconds."""

    name: str
    duration_s: float
    outcomes: tuple[Outcome, ...]

    def summary(self, objective: Objective) -> Summary:
        return summarize(self.outcomes, self.duration_s, objective)


def parts(run: Run, objective: Objective) -> list[tuple[str, Summary]]:
    """The whole run, and its kinds and transports where there are several."""
    found = [(run.name, run.summary(objective))]
    groups = by_group(run.outcomes)
    if len(groups) > 1:
        found += [
            (f"  {name}", summarize(group, run.duration_s, objective))
            for name, group in groups.items()
        ]
    return found


def report_of(runs: Sequence[Run], objective: Objective, **facts: Any) -> dict[str, Any]:
    """The report as JSON has it. `facts`: what else belongs to it."""
    return {
        "command": sys.argv,
        "objective": asdict(objective),
        **facts,
        "runs": [
            {
                "name": run.name,
                "duration_s": run.duration_s,
                "groups": {name: part.as_json() for name, part in parts(run, objective)},
            }
            for run in runs
        ],
    }


def write_report(
    folder: Path, runs: Sequence[Run], report: dict[str, Any], *, picture: bool = True
) -> None:
    """`report.json`, and `report.png` unless it is not wanted. Raises `OSError`."""
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    (folder / JSON_FILE).write_text(text, encoding="utf-8")
    if picture:
        plot_load({run.name: run.outcomes for run in runs}, folder / PICTURE_FILE)
