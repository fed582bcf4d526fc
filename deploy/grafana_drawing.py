"""A dashboard as one picture, much as Grafana shows it; drawn without a display.

Knows nothing of where the values come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from deploy.grafana_dashboards import GRID_WIDTH, Dashboard, Panel, Place, Row, layout
from deploy.grafana_units import clock_ticks, flow, formatted, value_ticks
from deploy.png import save_png

__all__ = ["Line", "Window", "draw"]

# Pixels.
_WIDTH = 1500
_HEADER, _CELL_HEIGHT, _GAP = 52, 36, 8
_PADDING, _TITLE, _CLOCK, _LEGEND_LINE, _MARK = 12, 34, 26, 18, 22
_LEAST_PLOT = 96
_DPI = 100

_PAGE, _CARD, _EDGE = "#111217", "#181b1f", "#2c2f36"
_TEXT, _FAINT, _GOOD = "#d8d9da", "#9a9ca3", "#73bf69"
# Grafana's classic palette, as far as it is read on dark ground.
_COLOURS = (
    "#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0",
    "#508642", "#cca300", "#447ebc", "#c15c17", "#b7dbab", "#f4d598", "#70dbed", "#f9ba8f",
    "#f29191", "#82b5d8", "#e5a8e2", "#aea2e0", "#629e51", "#e5ac0e", "#64b0c8", "#e0752d",
)  # fmt: skip
_SMALL, _NORMAL, _LARGE, _HUGE = 11.0, 13.0, 17.0, 40.0


class _Box(NamedTuple):
    """Part of the page, in pixels from its upper left corner."""

    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when, in whole seconds since the epoch, and how often."""

    start: int
    end: int
    step: int

    @property
    def moments(self) -> range:
        return range(self.start, self.end + 1, self.step)


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a panel: a value for each moment of the window, NaN where there is none."""

    label: str
    values: tuple[float, ...]
    is_dashed: bool = False

    @property
    def last(self) -> float:
        """The newest value there is."""
        return next((value for value in reversed(self.values) if not math.isnan(value)), math.nan)


def draw(dashboard: Dashboard, lines: Iterable[Sequence[Line]], window: Window, path: Path) -> None:
    """A PNG file. `lines` of each panel, in order; those that have none say so."""
    placed = list(layout(dashboard))
    cells = max(place.y + place.h for _, place in placed)
    page = _Page(cells)
    page.write_header(dashboard, window)
    remaining = iter(lines)
    for item, place in placed:
        if isinstance(item, Row):
            page.write_row(item, place)
        else:
            page.draw_panel(item, place, next(remaining), window)
    page.save(path)


class _Page:
    """A figure that is drawn on by pixels, counted from its upper left corner."""

    def __init__(self, cells: int) -> None:
        self._height = _HEADER + cells * _CELL_HEIGHT + _GAP
        size = (_WIDTH / _DPI, self._height / _DPI)
        self._figure = Figure(figsize=size, dpi=_DPI, facecolor=_PAGE)

    def write_header(self, dashboard: Dashboard, window: Window) -> None:
        head = self._area(_Box(_GAP, 0, _WIDTH - 2 * _GAP, _HEADER), _PAGE)
        start, end = (datetime.fromtimestamp(at, UTC) for at in (window.start, window.end))
        when = f"{start:%-d %B %Y, %H:%M} to {end:%H:%M} UTC"
        _write(head, 4, _HEADER / 2, dashboard.title, _LARGE, weight="bold")
        _write(head, _WIDTH - 2 * _GAP - 4, _HEADER / 2, when, _NORMAL, color=_FAINT, ha="right")

    def write_row(self, row: Row, place: Place) -> None:
        box = _box(place)
        _write(self._area(box, _PAGE), 4, box.h / 2, row.title, _NORMAL, weight="bold")

    def draw_panel(self, panel: Panel, place: Place, lines: Sequence[Line], window: Window) -> None:
        box = _box(place)
        card = self._area(box, _CARD)
        card.spines[:].set(visible=True, color=_EDGE)
        _write(card, _PADDING, _TITLE / 2, panel.title, _NORMAL, weight="bold")
        if not lines:
            _write(card, box.w / 2, box.h / 2, "No data", _NORMAL, color=_FAINT, ha="center")
        elif panel.kind == "stat":
            _write_numbers(card, panel, lines)
        else:
            legend_height = self._write_legend(card, box, lines)
            self._draw_lines(box, panel, lines, window, legend_height)

    def save(self, path: Path) -> None:
        save_png(self._figure, path)

    def _write_legend(self, card: Axes, box: _Box, lines: Sequence[Line]) -> float:
        """At the foot of a panel, as much as leaves room to draw lines. Returns how high it is."""
        widths = [_MARK + _width_of(line.label) + _PADDING for line in lines]
        places = flow(widths, box.w - 2 * _PADDING)
        most = int((box.h - _TITLE - _CLOCK - _LEAST_PLOT) // _LEGEND_LINE)
        shown = sum(row < most for _, row in places)
        height = _LEGEND_LINE * (places[shown - 1][1] + 1) + _PADDING / 2
        for number, (x, row) in enumerate(places[:shown]):
            at = _PADDING + x, box.h - height + _LEGEND_LINE * (row + 0.5)
            if number == shown - 1 and shown < len(lines):
                _write(card, *at, f"and {len(lines) - number} more", _SMALL, color=_FAINT)
                break
            mark = [at[0], at[0] + _MARK - 6]
            card.plot(mark, [at[1]] * 2, color=_colour(number), linestyle=_style(lines[number]))
            _write(card, at[0] + _MARK, at[1], lines[number].label, _SMALL)
        return height

    def _draw_lines(
        self, box: _Box, panel: Panel, lines: Sequence[Line], window: Window, legend_height: float
    ) -> None:
        most = max(value for line in lines for value in line.values if not math.isnan(value))
        values = value_ticks(most or 1.0, panel.unit, count=4)
        left = _PADDING + max(_width_of(text) for text in values.values()) + 6
        height = box.h - _TITLE - _CLOCK - legend_height
        inner = _Box(box.x + left, box.y + _TITLE, box.w - left - 1.5 * _PADDING, height)
        area = self._area(inner, _CARD)
        for number, line in enumerate(lines):
            _draw_line(area, line, window, _colour(number))
        edge = 0.02 * max(values)  # so that lines at zero and at the top are seen whole
        area.set(xlim=(window.start, window.end), ylim=(-edge, max(values) + edge))
        moments = clock_ticks(window.start, window.end, count=max(2, int(inner.w // 80)))
        area.set_xticks(list(moments), list(moments.values()))
        area.set_yticks(list(values), list(values.values()))
        size = _points(_SMALL)
        area.tick_params(length=0, pad=4, labelsize=size, labelcolor=_FAINT)
        area.grid(color=_EDGE, linewidth=0.7)
        area.set_axisbelow(True)

    def _area(self, box: _Box, colour: str) -> Axes:
        """Part of the page, with its own pixels from its upper left corner as coordinates."""
        share = (
            box.x / _WIDTH, 1 - (box.y + box.h) / self._height,
            box.w / _WIDTH, box.h / self._height,
        )  # fmt: skip
        axes = self._figure.add_axes(share, facecolor=colour)
        axes.set(xlim=(0, box.w), ylim=(box.h, 0), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes


def _write_numbers(card: Axes, panel: Panel, lines: Sequence[Line]) -> None:
    """What each line came to, side by side."""
    _, width = card.get_xlim()
    height, _ = card.get_ylim()
    for number, line in enumerate(lines):
        x, middle = width * (number + 0.5) / len(lines), (height + _TITLE / 2) / 2
        if panel.text == "name":
            _write(card, x, middle, line.label, _LARGE, color=_GOOD, ha="center")
            continue
        told = formatted(line.last, panel.unit)
        _write(card, x, middle, told, _HUGE, color=_GOOD, ha="center", weight="bold")
        if panel.text == "value_and_name":
            _write(card, x, height - 1.5 * _PADDING, line.label, _NORMAL, ha="center")


def _draw_line(area: Axes, line: Line, window: Window, colour: str) -> None:
    """Broken where there is nothing; a value between two gaps is a dot."""
    moments = list(window.moments)
    area.plot(moments, line.values, color=colour, linewidth=1.2, linestyle=_style(line))
    padded = (math.nan, *line.values, math.nan)
    alone = [
        (at, value)
        for at, before, value, after in zip(moments, padded, line.values, padded[2:], strict=False)
        if math.isnan(before) and math.isnan(after) and not math.isnan(value)
    ]
    if alone:
        area.plot(*zip(*alone, strict=True), ".", color=colour, markersize=4)


def _write(axes: Axes, x: float, y: float, text: str, size: float, **look: Any) -> None:
    """Text whose left end is at x, unless `ha` says otherwise, and whose middle is at y."""
    look = {"color": _TEXT, "va": "center_baseline", **look}
    axes.text(x, y, text, size=_points(size), parse_math=False, **look)


def _width_of(text: str) -> float:
    """Of small text."""
    if not text.strip():  # which matplotlib cannot measure
        return 0.0
    return float(TextPath((0, 0), text, size=_SMALL).get_extents().width)


def _box(place: Place) -> _Box:
    """In pixels of the page, with a gap to the neighbours."""
    cell = (_WIDTH - _GAP) / GRID_WIDTH
    return _Box(
        _GAP + place.x * cell,
        _HEADER + place.y * _CELL_HEIGHT,
        place.w * cell - _GAP,
        place.h * _CELL_HEIGHT - _GAP,
    )


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _style(line: Line) -> Any:
    return (0, (4, 2)) if line.is_dashed else "solid"


def _points(pixels: float) -> float:
    return pixels * 72 / _DPI
