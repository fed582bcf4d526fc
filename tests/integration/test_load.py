"""Load on the running platform, briefly: every request has one outcome. No test asserts a time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orrery import AsyncClient
from tests.conftest import REPOSITORY, Platform
from tests.load.__main__ import main
from tests.load.arrivals import Arrival
from tests.load.asks import MIXED_SHARES, Size, Subject, draw_ask
from tests.load.driver import open_loop
from tests.load.outcomes import OK, REFUSED
from tests.load.session import TRANSPORTS, Target, connected

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

Summary = dict[str, Any]


@pytest.fixture
def reports(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where reports go; commands find the platform from here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORRERY_DATA_DIR", str(platform.data_dir))
    return tmp_path / ".orrery/load"


def report_in(reports: Path) -> dict[str, Any]:
    (path,) = reports.glob("*/report.json")
    report: dict[str, Any] = json.loads(path.read_text())
    for run in report["runs"]:
        whole, *groups = run["groups"].values()
        for part in (whole, *groups):
            failed = sum(part["errors"].values())
            assert part[f"num_{OK}"] + part["num_refused"] + failed == part["num_requests"] > 0
        if groups:
            assert sum(group["num_requests"] for group in groups) == whole["num_requests"]
    return report


def wholes(report: dict[str, Any]) -> list[Summary]:
    return [next(iter(run["groups"].values())) for run in report["runs"]]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_more_at_once_than_there_is_room_for_are_answered_or_refused(
    platform: Platform, transport: str
) -> None:
    model, size = "orrery-llama", Size(8, 8)
    async with AsyncClient(platform.grpc_target) as client:
        info = await client.model(model)
    room = info.limits.max_running + info.limits.max_waiting
    subject, rng = Subject(model, info.vocab_size), Random(0)
    async with connected(Target(platform.grpc_target, platform.http_url), [transport]) as one:
        outcomes = await open_loop(
            [Arrival(0.0, size)] * (2 * room + 64),
            lambda size: draw_ask("generation", subject, rng, size),
            one,
            drain_s=120,
        )
    assert Counter(outcome.status for outcome in outcomes).keys() == {OK, REFUSED}
    assert len(outcomes) == 2 * room + 64
    assert all(o.num_tokens == size.output_tokens for o in outcomes if o.status == OK)
    assert all(o.retry_after_s for o in outcomes if o.status == REFUSED)


def test_an_overload_ends_every_request_in_one_way(reports: Path) -> None:
    main(["overload", "--duration", "5"])  # its status judges times, too
    report = report_in(reports)
    assert set(report["capacity"]) == set(TRANSPORTS)
    for whole in wholes(report):
        assert whole["errors"] == {}
        assert whole["num_ok"] > 0
        assert whole["refusals"]["num_without_retry_after"] == 0


def test_everything_that_is_served_is_asked_for_over_both_transports(reports: Path) -> None:
    assert main(["run", "--workload", "mixed", "--rate", "4", "--duration", "20"]) == 0
    report = report_in(reports)
    groups = report["runs"][0]["groups"]
    assert {name for name in groups if " over " in name} >= {
        f"  {kind} over {transport}"
        for kind in MIXED_SHARES
        if kind != "images"  # too few of them to be sure of both
        for transport in TRANSPORTS
    }
    assert wholes(report)[0]["errors"] == {}


def test_the_committed_trace_is_replayed(reports: Path) -> None:
    trace = REPOSITORY / "tests/load/traces/synthetic.csv"
    assert main(["replay", str(trace), "--speed", "4", "--over", "grpc"]) == 0
    whole = wholes(report_in(reports))[0]
    assert whole["num_requests"] == len(trace.read_text().splitlines()) - 1
    assert whole["errors"] == {}


def test_a_short_soak_watches_every_replica(reports: Path, platform: Platform) -> None:
    main(["soak", "--minutes", "1", "--rate", "2"])  # its status judges memory, too
    report = report_in(reports)
    assert wholes(report)[0]["errors"] == {}
    replicas = [one for one in report["processes"] if "replica" in one["name"].lower()]
    assert len(replicas) >= len(platform.applications)
    assert all(one["rss_after"] for one in replicas)
