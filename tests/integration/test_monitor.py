"""A real Prometheus watches the running platform: all that is documented is there, no panel of a
dashboard is dead, no alert asks for what does not exist.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deploy.grafana_dashboards import dashboards
from deploy.metrics_catalogue import Instrument, catalogue
from tests.conftest import REPOSITORY, Platform
from tests.integration.every_service import use_every_service
from tests.promql import rules, without_threshold
from tests.tools import tool

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SETTLED_S = 240.0
# Its labels say which shard and why, so that it is not there while none fails.
ONLY_WHEN_SOMETHING_FAILS = {"orrery_moe_shard_failures_total"}


class Prometheus:
    """One that runs."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30)

    def wait_until_ready(self) -> None:
        for _ in range(200):
            try:
                if self._http.get("/-/ready").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        pytest.fail("Prometheus does not become ready")

    def ask(self, path: str, **parameters: str) -> Any:
        answer = self._http.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", f"{parameters}: {answer['error']}"
        return answer["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        return list(self.ask("query", query=expr)["result"])

    def has_data(self, expr: str) -> bool:
        """A number, for something: what divides nothing by nothing has none."""
        return any(not math.isnan(float(found["value"][1])) for found in self.query(expr))

    def close(self) -> None:
        self._http.close()


@pytest.fixture(scope="module")
def prometheus(platform: Platform) -> Iterator[Prometheus]:
    """Started by the command that users run."""
    tool("prometheus")
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.monitor", f"--data-dir={platform.data_dir}", "--port=0"],
        cwd=REPOSITORY,
        env={key: value for key, value in os.environ.items() if not key.startswith("ORRERY_")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "http://127.0.0.1:" in said, said
        watching = Prometheus(said.split(";")[0].split()[-1])
        watching.wait_until_ready()
        yield watching
        watching.close()
    finally:
        process.terminate()
        assert process.wait(30) == 0
        process.stdout.close()


@pytest.fixture(scope="module")
def asked(platform: Platform, prometheus: Prometheus) -> dict[str, bool]:
    """Whether each query of panels, alerts and recordings has data, with every service in use.

    They are used until all have, since rates need several looks at what goes on; or for so long
    that those without never will.
    """
    exprs = [
        *(q.runnable for each in dashboards() for panel in each.panels for q in panel.asked),
        *(without_threshold(rule.expr) if rule.is_alert else rule.name for rule in rules()),
    ]
    until = time.monotonic() + SETTLED_S
    number = 0
    found: dict[str, bool] = {}
    while not found or not (all(found.values()) or time.monotonic() > until):
        number += 1
        use_every_service(platform, number)
        found = {expr: prometheus.has_data(expr) for expr in exprs}
    return found


def test_every_documented_metric_is_there_with_its_labels(
    prometheus: Prometheus, asked: dict[str, bool]
) -> None:
    faults = [
        fault
        for instrument in catalogue().values()
        if instrument.name not in ONLY_WHEN_SOMETHING_FAILS
        for fault in _faults(instrument, prometheus)
    ]
    assert faults == []


def test_every_metric_that_is_there_is_documented(
    prometheus: Prometheus, asked: dict[str, bool]
) -> None:
    known = set()
    for name, instrument in catalogue().items():
        ends = ("_bucket", "_count", "_sum") if instrument.kind == "histogram" else ("",)
        known.update(name + end for end in ends)
    names = prometheus.ask("label/__name__/values")
    assert {name for name in names if name.startswith("orrery_")} - known == {
        rule.name for rule in rules() if rule.name.startswith("orrery_")
    }


@pytest.mark.parametrize("name", [each.name for each in dashboards()])
def test_no_panel_is_dead(asked: dict[str, bool], name: str) -> None:
    (dashboard,) = (each for each in dashboards() if each.name == name)
    dead = [
        f"{panel.title}: {query.expr}"
        for panel in dashboard.panels
        for query in panel.asked
        if not asked[query.runnable]
    ]
    assert dead == []


def test_every_alert_and_recording_has_data(asked: dict[str, bool]) -> None:
    exprs = {
        rule.name: without_threshold(rule.expr) if rule.is_alert else rule.name for rule in rules()
    }
    assert [name for name, expr in exprs.items() if not asked[expr]] == []


def test_prometheus_reads_all_rules_and_reaches_the_platform(
    prometheus: Prometheus, asked: dict[str, bool]
) -> None:
    groups = prometheus.ask("rules")["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} == {
        rule.name for rule in rules()
    }
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    (target,) = prometheus.ask("targets")["activeTargets"]
    assert target["health"] == "up"


def test_every_application_tells_its_build(
    platform: Platform, prometheus: Prometheus, asked: dict[str, bool]
) -> None:
    found = {each["metric"]["application"] for each in prometheus.query("orrery_build_info")}
    assert found == set(platform.applications)


def _faults(instrument: Instrument, prometheus: Prometheus) -> Iterator[str]:
    """What its series lack, or have too much."""
    is_histogram = instrument.kind == "histogram"
    name = f"{instrument.name}_count" if is_histogram else instrument.name
    labels = ", ".join(sorted(instrument.all_labels | {"model"}))
    series = prometheus.query(f"count by ({labels}) ({name})")
    if not series:
        yield f"{name}: not there"
    for one in series:
        service = one["metric"]["service"]
        lacking = instrument.all_labels - one["metric"].keys()
        if service in ("gateway", "retrieval"):  # Prometheus drops labels that are empty
            lacking -= {"model"}
        yield from (f"{name} of {service}: no label {label}" for label in sorted(lacking))
        if service not in instrument.services:
            yield f"{name} is told by {service}"
    if is_histogram:
        bounds = {one["metric"]["le"] for one in prometheus.query(f"{instrument.name}_bucket")}
        if {float(bound) for bound in bounds} != {*instrument.buckets, math.inf}:
            yield f"{name}: buckets {sorted(bounds)}"
