"""Load on the running platform, briefly: every request has one outcome. No test asserts a time."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from deploy.demo_data import COLLECTION, DemoFolder, ingest
from orrery import AsyncClient, Client
from orrery.load.arrivals import Arrival
from orrery.load.asks import MIXED_SHARES, Size, Subject, draw_ask
from orrery.load.driver import open_loop
from orrery.load.outcomes import OK, REFUSED
from orrery.load.transports import TRANSPORTS, Target, connected
from tests.conftest import REPOSITORY, Platform
from tests.load.__main__ import main
from tests.unit.client.command import orrery

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
    return checked(report)


async def offered(platform: Platform, command: str, *options: str) -> dict[str, Any]:
    """The report of `orrery load`."""
    addresses = ("--target", platform.grpc_target)
    if "grpc" not in options:
        addresses += ("--http", platform.http_url)
    with tempfile.TemporaryDirectory() as folder:
        outcome = await orrery(
            "load", command, *options, *addresses, "--json", "--no-picture", "--out", folder
        )
    assert outcome.exit_code == 0, outcome.stderr
    report: dict[str, Any] = json.loads(outcome.stdout)
    return checked(report)


def checked(report: dict[str, Any]) -> dict[str, Any]:
    """The report, in which every request has one outcome."""
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


async def test_everything_that_is_served_is_asked_for_over_both_transports(
    platform: Platform, tmp_path: Path
) -> None:
    demo = DemoFolder.below(tmp_path)
    with Client(platform.grpc_target) as client:
        ingest(client, demo)
    asked = ("--collection", COLLECTION, "--questions", str(demo.questions))
    options = ("--workload", "mixed", "--model", "llama", "--rate", "4", "--duration", "20", *asked)
    report = await offered(platform, "run", *options)
    assert set(report["mixture"]) == set(MIXED_SHARES)
    groups = report["runs"][0]["groups"]
    assert {name for name in groups if " over " in name} >= {
        f"  {kind} over {transport}"
        for kind in MIXED_SHARES
        if kind != "images"  # too few of them to be sure of both
        for transport in TRANSPORTS
    }
    assert wholes(report)[0]["errors"] == {}


async def test_the_committed_trace_is_replayed(platform: Platform) -> None:
    trace = REPOSITORY / "tests/load/traces/synthetic.csv"
    options = ("--model", "llama", "--speed", "4", "--over", "grpc")
    whole = wholes(await offered(platform, "replay", str(trace), *options))[0]
    assert whole["num_requests"] == len(trace.read_text().splitlines()) - 1
    assert whole["errors"] == {}


def test_a_short_soak_watches_every_replica(reports: Path, platform: Platform) -> None:
    main(["soak", "--minutes", "1", "--rate", "2"])  # its status judges memory, too
    report = report_in(reports)
    assert [whole["errors"] for whole in wholes(report)] == [{}, {}]  # warm-up, soak
    replicas = [one for one in report["processes"] if "replica" in one["name"].lower()]
    assert len(replicas) >= len(platform.applications)
    assert all(one["rss_after"] for one in replicas)
