"""Grafana's dashboards, from a short declaration of each: its panels and what they ask.

    python -m deploy.grafana_dashboards    # writes deploy/grafana/dashboards/*.json

A declaration is a file in deploy/grafana/panels: rows of panels, each with `queries` (legend ->
PromQL) or `quantiles` (of a histogram, by labels). Knows nothing of what the metrics mean.
`python -m deploy.grafana_pictures` draws them without Grafana.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from deploy.ray_environment import REPOSITORY

__all__ = [
    "DASHBOARDS",
    "GRID_WIDTH",
    "Dashboard",
    "Panel",
    "Place",
    "Query",
    "Row",
    "dashboards",
    "documents",
    "layout",
]

PANELS = REPOSITORY / "deploy" / "grafana" / "panels"
DASHBOARDS = REPOSITORY / "deploy" / "grafana" / "dashboards"

GRID_WIDTH = 24
_HEIGHTS: Mapping[str, int] = MappingProxyType({"timeseries": 8, "stat": 4})
_SHOWN_QUANTILES = (0.5, 0.99)
_MEDIAN = "p50"
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quantiles(_Declared):
    """The median and the 99th percentile of a histogram, by labels. `legend`: of a series."""

    histogram: str
    by: tuple[str, ...] = ("application",)
    legend: str = ""
    where: str = 'application=~"$application"'


class Query(_Declared):
    """One line of a panel, or several: `legend` may name labels, as in `{{application}}`."""

    legend: str
    expr: str

    @property
    def is_median(self) -> bool:
        return self.legend.startswith(_MEDIAN)

    @property
    def runnable(self) -> str:
        """Its PromQL with what Grafana would write for its variables: all applications."""
        return self.expr.replace("$application", ".*").replace("$__rate_interval", "1m")


class Panel(_Declared):
    """`unit` is Grafana's word: s, bytes, percentunit, ops, short. `text` is what a stat shows."""

    title: str
    description: str = ""
    unit: str = "short"
    kind: str = Field(default="timeseries", pattern="timeseries|stat")
    text: str = Field(default="value", pattern="value|value_and_name|name")
    width: int = Field(default=8, ge=1, le=GRID_WIDTH)
    queries: dict[str, str] = {}
    quantiles: Quantiles | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> Panel:
        if bool(self.queries) == (self.quantiles is not None):
            raise ValueError(f"{self.title}: expected either queries or quantiles")
        return self

    @property
    def asked(self) -> tuple[Query, ...]:
        """What it asks Prometheus."""
        if self.quantiles is not None:
            counts = self.unit == "short"
            return tuple(_quantile(self.quantiles, share, counts) for share in _SHOWN_QUANTILES)
        return tuple(Query(legend=legend, expr=expr) for legend, expr in self.queries.items())


class Row(_Declared):
    title: str
    panels: tuple[Panel, ...]


class Dashboard(_Declared):
    """`application_of`: the metric whose applications may be chosen between."""

    name: str
    title: str
    description: str
    application_of: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)


class Place(NamedTuple):
    """Where something stands in Grafana's grid, and how many of its cells it takes."""

    x: int
    y: int
    w: int
    h: int


def dashboards() -> list[Dashboard]:
    """All that are declared. Raises `ValueError` for one that is wrong."""
    return [
        Dashboard.model_validate({"name": path.stem, **yaml.safe_load(path.read_text())})
        for path in sorted(PANELS.glob("*.yml"))
    ]


def documents() -> dict[Path, str]:
    """What the files of all dashboards should hold."""
    return {
        DASHBOARDS / f"{each.name}.json": json.dumps(_document(each), indent=2) + "\n"
        for each in dashboards()
    }


def layout(dashboard: Dashboard) -> Iterator[tuple[Row | Panel, Place]]:
    """The rows' titles and their panels, from left to right and from top to bottom."""
    y = 0
    for row in dashboard.rows:
        yield row, Place(0, y, GRID_WIDTH, 1)
        x, y = 0, y + 1
        below = y
        for panel in row.panels:
            if x + panel.width > GRID_WIDTH:
                x, y = 0, below
            place = Place(x, y, panel.width, _HEIGHTS[panel.kind])
            yield panel, place
            x, below = x + place.w, max(below, y + place.h)
        y = below


def _quantile(of: Quantiles, share: float, counts: bool) -> Query:
    """Of things that are counted a whole number: between two bounds Prometheus can only guess."""
    by = ", ".join((*of.by, "le"))
    selector = f"{of.histogram}_bucket{{{of.where}}}"
    expr = f"histogram_quantile({share}, sum by ({by}) (rate({selector}[$__rate_interval])))"
    legend = of.legend or " ".join(f"{{{{{label}}}}}" for label in of.by)
    return Query(legend=f"p{share * 100:g} {legend}", expr=f"ceil({expr})" if counts else expr)


def _document(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": f"orrery-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["orrery"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": _variables(dashboard)},
        "panels": list(_panels(dashboard)),
    }


def _variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    query = f"label_values({dashboard.application_of}, application)"
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        {
            "name": "application",
            "type": "query",
            "datasource": _DATASOURCE,
            "query": {"query": query, "refId": "applications"},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    for number, (item, place) in enumerate(layout(dashboard), 1):
        yield {"id": number, "gridPos": place._asdict(), **_told(item)}


def _told(item: Row | Panel) -> dict[str, Any]:
    if isinstance(item, Row):
        return {"type": "row", "title": item.title, "panels": []}
    return _panel(item)


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.kind == "timeseries":
        defaults["custom"] = {"showPoints": "auto"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": _overrides(panel)},
        "options": {"textMode": panel.text, "graphMode": "none"} if panel.kind == "stat" else {},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
            }
            for index, query in enumerate(panel.asked)
        ],
    }


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    """Of two lines for the same thing, the median is the dashed one."""
    if panel.quantiles is None:
        return []
    dashed = {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [6, 4]}}
    return [{"matcher": {"id": "byRegexp", "options": f"/^{_MEDIAN}/"}, "properties": [dashed]}]


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text)
