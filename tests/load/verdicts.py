"""What should hold of a run, and what was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console

__all__ = ["Verdict", "show_verdicts"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Something that should hold, and what was found."""

    claim: str
    holds: bool
    found: str


def show_verdicts(console: Console, verdicts: Iterable[Verdict]) -> None:
    for verdict in verdicts:
        mark = "[green]holds[/]" if verdict.holds else "[bold red]fails[/]"
        console.print(f"{mark}  {verdict.claim}: {verdict.found}")
