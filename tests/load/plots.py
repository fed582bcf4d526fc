"""The picture of a report: a column for each run, drawn without a display."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.load.outcomes import OK, REFUSED, Outcome

__all__ = ["draw_memory", "draw_runs"]

_COLOURS = {OK: "tab:blue", REFUSED: "tab:orange", "failed": "tab:red"}
_MS = 1e3


def draw_runs(runs: Mapping[str, Sequence[Outcome]], path: Path) -> None:
    """Arrivals by outcome; waiting times as they came; their distributions."""
    figure = Figure(figsize=(6 * max(1, len(runs)), 10), layout="constrained")
    axes = figure.subplots(3, max(1, len(runs)), squeeze=False, sharey="row")
    for column, (name, outcomes) in zip(axes.T, runs.items(), strict=True):
        column[0].set_title(name)
        _draw_arrivals(column[0], outcomes)
        _draw_times(column[1], outcomes)
        _draw_distributions(column[2], outcomes)
    axes[0, 0].legend(loc="upper right")
    figure.savefig(path, dpi=110)


def draw_memory(lines: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Resident memory of each process, in MiB, by seconds since the start."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots()
    for name, points in sorted(lines.items(), key=lambda item: -item[1][-1][1]):
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
    axes.set(xlabel="s", ylabel="resident memory, MiB")
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="x-small")
    figure.savefig(path, dpi=110)


def _draw_arrivals(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Requests of each second, stacked by what became of them."""
    length = int(max((o.planned_s for o in outcomes), default=0.0)) + 1
    below = [0] * length
    for status, colour in _COLOURS.items():
        counts = Counter(int(o.planned_s) for o in outcomes if _class(o) == status)
        heights = [counts[second] for second in range(length)]
        axes.bar(range(length), heights, 1.0, below, align="edge", color=colour, label=status)
        below = [a + b for a, b in zip(below, heights, strict=True)]
    axes.set(xlabel="planned arrival, s", ylabel="requests a second")


def _draw_times(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Of each request, when its first text or its refusal came."""
    for status, colour in _COLOURS.items():
        points = [(o.planned_s, _MS * _first(o)) for o in outcomes if _class(o) == status]
        if points:
            axes.plot(*zip(*points, strict=True), ".", color=colour, markersize=3, label=status)
    axes.set_yscale("log")
    axes.set(xlabel="planned arrival, s", ylabel="first text or refusal, ms")


def _draw_distributions(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    ok = [o for o in outcomes if o.status == OK]
    drawn = {
        "first text": [o.first_s for o in ok if o.first_s is not None],
        "between texts": [gap for o in ok for gap in o.gaps_s],
        "whole": [o.total_s for o in ok],
        "refusal": [o.total_s for o in outcomes if o.status == REFUSED],
    }
    for label, values in drawn.items():
        if values:
            axes.ecdf([_MS * value for value in values], label=f"{label} ({len(values)})")
    axes.set_xscale("log")
    axes.set_xlim(left=1.0)
    axes.set(xlabel="ms", ylabel="share")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(loc="upper left")


def _class(outcome: Outcome) -> str:
    return outcome.status if outcome.status in (OK, REFUSED) else "failed"


def _first(outcome: Outcome) -> float:
    return outcome.total_s if outcome.first_s is None else outcome.first_s
