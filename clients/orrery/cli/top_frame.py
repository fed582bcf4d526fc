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
    numbers = ("REPLICAS", "RUNNING", "WAITING", "IN USE", "CACHED", "MiB")
    table = new_table(
        "APPLICATION", "STATE", *numbers[:3], "PER SECOND", *numbers[3:], "", numbers=numbers
    )
    for row in frame.services:
        style = None if row.state in (READY, OTHER) else "red"
        table.add_row(Text(row.application or "-"), row.state, *_cells(row), style=style)
    heading = Text(f"{frame.at.astimezone():%H:%M:%S}  {frame.target}  {remark}".rstrip())
    problem = Text(f"does not answer: {frame.problem}", style="red") if frame.problem else Text()
    return Group(heading, problem, table)


def _cells(row: Row) -> tuple[str | Text, ...]:
    activity = row.activity
    if activity is None:
        return ("-", "-", "-", "-", "-", "-", "-", Text(row.note))
    return (
        str(activity.num_replicas),
        _count(activity.num_running),
        _count(activity.num_waiting),
        _per_second(activity.per_second),
        _share(activity.usage),
        _share(_cached(activity.per_second or {})),
        "-" if activity.resident_bytes is None else f"{activity.resident_bytes / _MIB:.0f}",
        Text(row.note),
    )


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _share(part: float | None) -> str:
    return "-" if part is None else f"{part:.0%}"


def _per_second(rates: Mapping[str, float] | None) -> str:
    """`4.2 requests, 341+1204 tokens`: of the prompts, and generated."""
    if rates is None:
        return "-"
    if "prompt_tokens" not in rates:
        told = {name: rate for name, rate in rates.items() if not name.startswith("cache_")}
        return ", ".join(f"{_rate(rate)} {name}" for name, rate in told.items())
    tokens = f"{_rate(rates['prompt_tokens'])}+{_rate(rates['completion_tokens'])} tokens"
    preempted = f", {_rate(rates['preemptions'])} preempted" if rates["preemptions"] else ""
    return f"{_rate(rates['requests'])} requests, {tokens}{preempted}"


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _cached(rates: Mapping[str, float]) -> float | None:
    """Share of the prompts' tokens, or of the inputs, that needed no computing."""
    hits = rates.get("cached_tokens", rates.get("cache_hits", 0.0))
    asked = rates.get("prompt_tokens", hits + rates.get("cache_misses", 0.0))
    return hits / asked if asked else None
