"""A load test as a picture: what was asked and what became of it, a column for each run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orrery.load.outcomes import OK, REFUSED, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_load"]

_COLOURS = {OK: "tab:blue", REFUSED: "tab:orange", "failed": "tab:red"}
_MS = 1e3
_COLUMN_INCHES, _LEAST_WIDTH_INCHES, _HEIGHT_INCHES = 4.6, 8.0, 9.0
_DPI = 100
_MAX_BARS = 60
_SHARES = (0.5, 0.9, 0.99)  # lines to read percentiles from


def plot_load(runs: Mapping[str, Sequence[Outcome]], path: Path) -> None:
    """Arrivals by outcome; waiting times as they came; their distributions.

    Raises `OSError` where the file cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot: no display, no state
    from matplotlib.patches import Patch

    columns = max(1, len(runs))
    size = max(_LEAST_WIDTH_INCHES, _COLUMN_INCHES * columns), _HEIGHT_INCHES
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    axes = figure.subplots(3, columns, squeeze=False, sharey="row")
    for column, (name, outcomes) in zip(axes.T, runs.items(), strict=False):
        column[0].set_title(name)
        _draw_arrivals(column[0], outcomes)
        _draw_times(column[1], outcomes)
        _draw_distributions(column[2], outcomes)
    told = (
        "requests a second",
        "first text, refusal, or whole\nanswer without a stream, ms",
        "share",
    )
    for first, label in zip(axes[:, 0], told, strict=True):
        first.set_ylabel(label)
    figure.legend(
        handles=[Patch(color=colour, label=status) for status, colour in _COLOURS.items()],
        loc="outside upper center",
        ncols=len(_COLOURS),
        frameon=False,
    )
    figure.savefig(path)


def _draw_arrivals(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Requests a second, stacked by what became of them. Bars of a long run are of many seconds."""
    length = int(max((o.planned_s for o in outcomes), default=0.0)) + 1
    width = math.ceil(length / _MAX_BARS)
    starts = range(0, length, width)
    below = [0.0] * len(starts)
    for status, colour in _COLOURS.items():
        counts = Counter(int(o.planned_s) // width for o in outcomes if _class(o) == status)
        heights = [counts[start // width] / width for start in starts]
        axes.bar(starts, heights, width, below, align="edge", color=colour)
        below = [a + b for a, b in zip(below, heights, strict=True)]
    _polish(axes, "planned arrival, s")


def _draw_times(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Of each request, when its first text or its refusal came; what was answered on top."""
    for status, colour in reversed(_COLOURS.items()):
        points = [(o.planned_s, _MS * _first(o)) for o in outcomes if _class(o) == status]
        if points:
            axes.plot(*zip(*points, strict=True), ".", color=colour, markersize=4, alpha=0.7)
    axes.set_yscale("log")
    axes.set_ylim(bottom=1.0)
    axes.yaxis.set_major_formatter(_plain)
    _polish(axes, "planned arrival, s")


def _draw_distributions(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Which share of the times is at most so long."""
    ok = [o for o in outcomes if o.status == OK]
    drawn = {
        "first text": ([o.first_s for o in ok if o.first_s is not None], _COLOURS[OK]),
        "between texts": ([gap for o in ok for gap in o.gaps_s], "tab:green"),
        "whole": ([o.total_s for o in ok], "tab:purple"),
        "refusal": ([o.total_s for o in outcomes if o.status == REFUSED], _COLOURS[REFUSED]),
    }
    for label, (values, colour) in drawn.items():
        if values:
            times = [_MS * value for value in values]
            axes.ecdf(times, label=f"{label} ({len(values)})", color=colour)
    axes.set_xscale("log")
    axes.set_xlim(left=1.0)
    axes.xaxis.set_major_formatter(_plain)
    axes.set_yticks([0, *_SHARES], ["0", *(f"p{100 * share:g}" for share in _SHARES)])
    axes.set_ylim(0, 1.02)
    _polish(axes, "ms")
    if axes.lines:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False)


def _polish(axes: Axes, xlabel: str) -> None:
    axes.set_xlabel(xlabel)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _plain(value: float, _position: float = 0.0) -> str:
    """Without an exponent."""
    return f"{value:,.10g}"


def _class(outcome: Outcome) -> str:
    return outcome.status if outcome.status in (OK, REFUSED) else "failed"


def _first(outcome: Outcome) -> float:
    return outcome.total_s if outcome.first_s is None else outcome.first_s
