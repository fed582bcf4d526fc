"""A frame of `orrery top`, and how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from orrery.cli.activity import Activity
from orrery.cli.services import OTHER, READY
from orrery.cli.tables import new_table

__all__ = ["Frame", "Row", "draw_frame"]

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One service in a frame."""

    application: str
    model: str | None
    state: str
    activity: Activity | None
    note: str


@dataclass(frozen=True, slots=True)
class Frame:
    """How the platform is at a time. `problem` = why it does not answer."""

    at: datetime
    target: str
    problem: str | None
    services: tuple[Row, ...]


def draw_frame(frame: Frame, remark: str) -> RenderableType:
    """The services as a table, and below it what else is worth a glance."""
    headings = ("RUN", "WAIT", "DONE/S", "TOKENS/S", "USED", "HITS", "MiB")
    table = new_table("APPLICATION", "STATE", *headings, numbers=headings)
    for row in frame.services:
        style = None if row.state in (READY, OTHER) else "red"
        table.add_row(Text(_name(row)), row.state, *_cells(row.activity), style=style)
    heading = Text(f"{frame.at.astimezone():%H:%M:%S}  {frame.target}  {remark}".rstrip())
    problem = Text(f"does not answer: {frame.problem}", style="red") if frame.problem else Text()
    notes = [Text(f"{_name(row)}: {told}") for row in frame.services if (told := _notes(row))]
    return Group(heading, problem, table, Text(), *notes)


def _name(row: Row) -> str:
    """With the number of replicas, where there are several."""
    num_replicas = row.activity.num_replicas if row.activity else 1
    return (row.application or "-") + (f" x{num_replicas}" if num_replicas > 1 else "")


def _cells(activity: Activity | None) -> tuple[str, ...]:
    if activity is None:
        return ("-",) * 7
    rates = activity.per_second
    return (
        _count(activity.num_running),
        _count(activity.num_waiting),
        "-" if rates is None else _done(rates),
        "-" if rates is None else _tokens(rates),
        _share(activity.usage),
        _share(_cached(rates or {})),
        "-" if activity.resident_bytes is None else f"{activity.resident_bytes / _MIB:.0f}",
    )


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _share(part: float | None) -> str:
    return "-" if part is None else f"{part:.0%}"


def _done(rates: Mapping[str, float]) -> str:
    """What the service is for: `4.2 requests`."""
    name = next(iter(rates))
    return "-" if name == "tokens" else f"{_rate(rates[name])} {name}"


def _tokens(rates: Mapping[str, float]) -> str:
    """`341+1204`: of the prompts, and generated."""
    if "prompt_tokens" in rates:
        return f"{_rate(rates['prompt_tokens'])}+{_rate(rates['completion_tokens'])}"
    return _rate(rates["tokens"]) if "tokens" in rates else "-"


def _notes(row: Row) -> str:
    rates = row.activity.per_second if row.activity else None
    further = {name: (rates or {}).get(name, 0.0) for name in ("steps", "preemptions")}
    told = [f"{_rate(rate)} {name} per second" for name, rate in further.items() if rate]
    return ", ".join([*told, *filter(None, [row.note])])


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _cached(rates: Mapping[str, float]) -> float | None:
    """Share of the prompts' tokens, or of the inputs, that needed no computing."""
    hits = rates.get("cached_tokens", rates.get("cache_hits", 0.0))
    asked = rates.get("prompt_tokens", hits + rates.get("cache_misses", 0.0))
    return hits / asked if asked else None
