"""The dashboards: fresh from their declarations, asking only for what is exported."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest

from deploy.grafana_dashboards import DASHBOARDS, Dashboard, Panel, dashboards, documents
from deploy.metrics_catalogue import catalogue
from tests.promql import faults, labels_of_series


def test_files_are_fresh_and_none_is_left_over() -> None:
    written = {path: path.read_text() for path in DASHBOARDS.glob("*")}
    assert written == documents(), "run python -m deploy.grafana_dashboards"


def test_there_is_one_for_the_platform_and_each_kind_of_work() -> None:
    names = {dashboard.name for dashboard in dashboards()}
    assert names == {"platform", "generation", "retrieval", "moe", "images"}


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard.name)
def test_panels_ask_for_what_is_exported(dashboard: Dashboard) -> None:
    known = labels_of_series(catalogue())
    asked = [(panel.title, query.expr) for panel in dashboard.panels for query in panel.asked]
    asked.append(("variable", dashboard.application_of))
    found = {title: list(faults(expr, known)) for title, expr in asked}
    assert {title: wrong for title, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard.name)
def test_legends_name_labels_that_the_query_keeps(dashboard: Dashboard) -> None:
    known = labels_of_series(catalogue())
    for panel in dashboard.panels:
        for query in panel.asked:
            for label in query.legend.split("{{")[1:]:
                name = label.split("}}")[0]
                assert list(faults(f"sum by ({name}) ({query.expr})", known)) == [], panel.title


def test_every_metric_is_in_some_panel() -> None:
    asked = " ".join(
        query.expr for each in dashboards() for panel in each.panels for query in panel.asked
    )
    assert {name for name in catalogue() if name not in asked} == set()


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard.name)
def test_queries_run_outside_grafana(dashboard: Dashboard) -> None:
    asked = [query.runnable for panel in dashboard.panels for query in panel.asked]
    assert [expr for expr in asked if "$" in expr] == []


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard.name)
def test_panels_do_not_lie_on_each_other(dashboard: Dashboard) -> None:
    document = json.loads((DASHBOARDS / f"{dashboard.name}.json").read_text())
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    for one, other in combinations((panel["gridPos"] for panel in document["panels"]), 2):
        assert not _overlap(one, other)


def test_panel_that_asks_nothing_or_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="Empty: expected either queries or quantiles"):
        Panel(title="Empty")
    with pytest.raises(ValueError, match="expected either queries or quantiles"):
        Panel.model_validate(
            {"title": "Both", "queries": {"a": "up"}, "quantiles": {"histogram": "h"}}
        )


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
