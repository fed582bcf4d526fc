"""Pictures of the dashboards, from what a running Prometheus has seen: no Grafana is needed.

    python -m deploy.grafana_pictures                      # the last ten minutes of `make monitor`
    python -m deploy.grafana_pictures moe --minutes 60 --output /tmp

Names each query that found nothing, and then ends with status 1.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape

from deploy.grafana_dashboards import Dashboard, Query, dashboards
from deploy.grafana_drawing import Line, Window, draw
from deploy.grafana_units import legend
from deploy.monitor import DEFAULT_PORT
from deploy.ports import HOST

__all__ = ["PrometheusError", "lines_of", "window"]

OUTPUT = Path(".orrery/dashboards")
_MOMENTS = 120  # in a window: more than a panel has room for would only cost time
_LEAST_STEP_S = 5  # as often as it scrapes


class PrometheusError(Exception):
    """Prometheus is not there or refuses a query; the message says which."""


def window(until: datetime, minutes: float) -> Window:
    """The minutes before a moment, at a step that gives enough to draw."""
    step = max(_LEAST_STEP_S, round(60 * minutes / _MOMENTS))
    end = int(until.timestamp()) // step * step
    return Window(end - round(60 * minutes) // step * step, end, step)


def lines_of(query: Query, found: Sequence[dict[str, Any]], window: Window) -> list[Line]:
    """The series that a query found, but for those without a number; by their legends."""
    lines = []
    for series in found:
        numbers = {int(at): float(value) for at, value in series["values"]}
        values = {at: value for at, value in numbers.items() if math.isfinite(value)}
        told = tuple(values.get(at, math.nan) for at in window.moments)
        label = legend(query.legend, series["metric"])
        lines.append(Line(label, told, is_dashed=query.is_median))
    return sorted((line for line in lines if not math.isnan(line.last)), key=lambda x: x.label)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console()
    chosen = [each for each in dashboards() if each.name in options.names]
    looked_at = window(options.until, options.minutes)
    options.output.mkdir(parents=True, exist_ok=True)
    empty = []
    try:
        with httpx.Client(base_url=options.prometheus, timeout=60) as http:
            for dashboard in chosen:
                path = options.output / f"{dashboard.name}.png"
                empty += _picture(http, dashboard, looked_at, path)
                console.print(f"{path}", highlight=False, soft_wrap=True)
    except PrometheusError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1
    for each in empty:
        console.print(f"[bold red]no data:[/] {escape(each)}", highlight=False, soft_wrap=True)
    return 1 if empty else 0


def _picture(http: httpx.Client, dashboard: Dashboard, window: Window, path: Path) -> list[str]:
    """Draws it. Returns what found nothing."""
    drawn, empty = [], []
    for panel in dashboard.panels:
        found = {q: lines_of(q, _ask(http, q, window), window) for q in panel.asked}
        drawn.append([line for lines in found.values() for line in lines])
        empty += [
            f"{dashboard.title}, {panel.title}: {query.legend}"
            for query, lines in found.items()
            if not lines
        ]
    draw(dashboard, drawn, window, path)
    return empty


def _ask(http: httpx.Client, query: Query, window: Window) -> list[dict[str, Any]]:
    asked: dict[str, str | int] = {
        "query": query.runnable,
        "start": window.start,
        "end": window.end,
        "step": window.step,
    }
    try:
        answer = http.get("/api/v1/query_range", params=asked).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise PrometheusError(f"no Prometheus answers at {http.base_url}: {error}") from error
    if answer["status"] != "success":
        raise PrometheusError(f"{query.runnable}: {answer['error']}")
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def _parser() -> argparse.ArgumentParser:
    names = [each.name for each in dashboards()]
    parser = argparse.ArgumentParser(
        prog="python -m deploy.grafana_pictures", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "names", nargs="*", type=_name, default=names, metavar="NAME", help="default: all"
    )
    parser.add_argument(
        "--prometheus", default=f"http://{HOST}:{DEFAULT_PORT}", help="default %(default)s"
    )
    parser.add_argument("--minutes", type=_minutes, default=10.0, help="default 10")
    parser.add_argument(
        "--until", type=_moment, default=datetime.now(UTC), help="ISO 8601, UTC; default: now"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder; default %(default)s")
    return parser


def _name(text: str) -> str:
    names = [each.name for each in dashboards()]
    if text not in names:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got {text}")
    return text


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return minutes


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
