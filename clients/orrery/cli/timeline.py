"""The stages of a call as bars."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from orrery.cli.session import printable
from orrery.cli.tables import new_table
from orrery.results import StageTiming

__all__ = ["print_timeline"]

_WIDTH = 24
_NS_PER_MS = 1e6


def print_timeline(console: Console, stages: Sequence[StageTiming], total_ns: int) -> None:
    """One bar for each stage, on the scale of the whole call."""
    end_ns = max([total_ns, 1, *(stage.start_ns + stage.duration_ns for stage in stages)])
    table = new_table("STAGE", "", "MS", "DETAIL", numbers=("MS",))
    for stage in stages:
        before = round(stage.start_ns / end_ns * _WIDTH)
        length = max(1, round(stage.duration_ns / end_ns * _WIDTH))
        before = min(before, _WIDTH - length) if length <= _WIDTH else 0
        bar = " " * before + "█" * length
        duration = f"{stage.duration_ns / _NS_PER_MS:.1f}"
        detail = Text(printable(stage.detail))
        table.add_row(Text(printable(stage.stage)), bar.ljust(_WIDTH), duration, detail)
    table.add_row("total", "", f"{total_ns / _NS_PER_MS:.1f}", "", style="bold")
    console.print(table)
