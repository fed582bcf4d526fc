"""`orrery top`: rates from what the loads count, of every replica and of every kind of service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from orrery.cli.activity import ActivityMeter
from orrery.cli.services import ShardLoad
from orrery.results import ImageLoad, Load, MoeLoad, RagLoad
from orrery.v1 import generation_pb2 as pb
from services.runtime import errors as served
from tests.fakes.moe_cluster import MODEL_NAME, RunningCluster, moe_cluster_in_thread
from tests.fakes.moe_model import moe_folder
from tests.unit.client.command import Terminal, orrery
from tests.unit.client.scripted import ScriptedServer, abort, by_application, refuse, reply

EARLIER = pb.GetLoadResponse(
    num_running=2, num_waiting=1, num_blocks=100, num_free_blocks=75, process_id=7
)
LATER = pb.GetLoadResponse(
    num_running=3,
    num_waiting=0,
    num_blocks=100,
    num_free_blocks=40,
    process_id=7,
    num_finished=20,
    num_prompt_tokens=400,
    num_cached_tokens=100,
    num_completion_tokens=1000,
    resident_bytes=300 << 20,
)


@pytest.fixture
def platform(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A model whose second load counts more than its first, one that loads, and a gateway."""
    monkeypatch.setenv("ORRERY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("ORRERY_TARGET", server.target)
    server.on("ListApplications", reply(FieldMask(paths=["llama", "gpt", "gateway"])))
    ready = reply(pb.GetModelResponse(model="orrery-llama"))
    loading = refuse(served.NotReady("loading"))
    server.on("GetModel", by_application({"llama": ready, "gpt": loading}))
    server.on("GetLoad", reply(EARLIER), reply(LATER))


def load(process_id: int = 7, **counts: int) -> Load:
    fields: dict[str, Any] = dict.fromkeys(Load.__slots__, 0)
    return Load(**fields | {"model": "m", "process_id": process_id} | counts)


def cells(output: str, first: str) -> list[str]:
    return next(line.split() for line in output.splitlines() if line.startswith(first))


# --- one frame --------------------------------------------------------------------------------


async def test_once_shows_the_rates_of_one_interval(platform: None) -> None:
    outcome = await orrery("top", "--once", "--interval", "0.2")
    assert outcome.exit_code == 3  # gpt is not ready
    llama = cells(outcome.stdout, "llama")
    assert llama[:4] == ["llama", "ready", "3", "0"]
    assert llama[5] == "requests"
    assert llama[-3:] == ["60%", "25%", "300"]
    assert cells(outcome.stdout, "gpt")[1] == "NOT_READY"
    assert cells(outcome.stdout, "gateway")[1] == "-"


async def test_a_service_that_answers_and_is_not_ready_says_why(
    platform: None, server: ScriptedServer
) -> None:
    server.on("ListApplications", reply(FieldMask(paths=["llama"])))
    server.on("Check", refuse(served.NotReady("its experts are away")))
    outcome = await orrery("top", "--once", "--interval", "0.1")
    assert outcome.exit_code == 3
    assert cells(outcome.stdout, "llama")[:3] == ["llama", "NOT_READY", "3"]
    assert "llama: its experts are away" in outcome.stdout


async def test_json_is_one_line_and_its_rates_are_counts_over_seconds(platform: None) -> None:
    outcome = await orrery("top", "--once", "--interval", "0.2", "--json")
    (line,) = outcome.stdout.splitlines()
    frame = json.loads(line)
    services = {each["application"]: each for each in frame["services"]}
    rates = services["llama"]["per_second"]
    assert rates["requests"] > 0
    # Whatever the time between the frames was, all are divided by the same.
    assert rates["prompt_tokens"] == pytest.approx(20 * rates["requests"])
    assert rates["completion_tokens"] == pytest.approx(50 * rates["requests"])
    assert rates["preemptions"] == 0
    assert services["llama"]["usage"] == pytest.approx(0.6)
    assert services["gpt"]["per_second"] is None
    assert "activity" not in services["llama"]
    assert (frame["problem"], services["gateway"]["state"]) == (None, "-")


async def test_a_platform_that_does_not_answer_is_one_line() -> None:
    outcome = await orrery("top", "--once", "--target", "127.0.0.1:1", "--timeout", "1")
    assert (outcome.exit_code, outcome.stdout) == (3, "")
    assert "127.0.0.1:1 does not answer" in outcome.stderr


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "often", "1e9"])
async def test_an_interval_that_cannot_be_is_refused(interval: str) -> None:
    outcome = await orrery("top", "--interval", interval)
    assert outcome.exit_code == 2
    assert "--interval" in outcome.stderr


# --- frame after frame ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
async def test_on_a_terminal_it_goes_on_until_ctrl_c(platform: None, kind: str) -> None:
    def watch() -> tuple[int, str]:
        with Terminal("top", "--interval", "0.1", kind=kind) as terminal:
            terminal.expect("requests")  # from the second frame on there are rates
            terminal.expect("requests")
            terminal.type("\x03")
            return terminal.wait(), terminal.output

    code, output = await asyncio.to_thread(watch)
    assert code == 0
    assert ("\x1b[?1049h" in output) == (kind == "xterm")  # a screen of its own, and left again
    assert ("\x1b[?1049l" in output) == (kind == "xterm")


async def test_a_service_that_fails_has_its_reason_and_comes_back(
    platform: None, server: ScriptedServer
) -> None:
    down = abort(grpc.StatusCode.UNAVAILABLE, "gone")
    server.on("GetLoad", reply(EARLIER), down, reply(LATER))
    outcome = await orrery("top", "--once", "--interval", "0.1")
    assert cells(outcome.stdout, "llama")[1] == "UNAVAILABLE"


# --- rates ------------------------------------------------------------------------------------


def test_a_replica_is_compared_with_itself_and_all_are_summed() -> None:
    meter = ActivityMeter(forget_after_s=10)
    meter.add("llama", load(7, num_finished=100, num_running=1), 0.0)
    meter.add("llama", load(8, num_finished=5, num_running=2), 1.0)
    first = meter.add("llama", load(7, num_finished=104, num_running=1), 2.0)
    assert first.per_second is not None
    assert (first.num_replicas, first.num_running) == (2, 3)
    assert first.per_second["requests"] == 2.0  # of one of the two alone, so far
    both = meter.add("llama", load(8, num_finished=11, num_running=2), 3.0)
    assert both.per_second is not None
    assert both.per_second["requests"] == 2.0 + 3.0


def test_a_replica_not_heard_of_any_more_is_forgotten() -> None:
    meter = ActivityMeter(forget_after_s=10)
    meter.add("llama", load(7, num_running=9), 0.0)
    activity = meter.add("llama", load(8, num_running=1), 11.0)
    assert (activity.num_replicas, activity.num_running) == (1, 1)
    assert activity.per_second is None


def test_counts_that_fell_are_another_process_and_give_no_rate() -> None:
    meter = ActivityMeter(forget_after_s=10)
    meter.add("llama", load(7, num_finished=100), 0.0)
    assert meter.add("llama", load(7, num_finished=1), 1.0).per_second is None
    again = meter.add("llama", load(7, num_finished=3), 2.0).per_second
    assert again is not None
    assert again["requests"] == 2.0


def test_each_kind_of_service_has_its_own_counts() -> None:
    meter = ActivityMeter(forget_after_s=10)

    def rates(name: str, *loads: Any) -> Any:
        return [meter.add(name, each, float(at)) for at, each in enumerate(loads)][-1]

    images = [
        ImageLoad(1, 2, 0, 8, 0, steps, pictures, 0, 0, 1) for steps, pictures in ((0, 0), (40, 2))
    ]
    found = rates("diffusion", *images)
    assert found.per_second == {"pictures": 2.0, "steps": 40.0}
    assert found.usage == 0.25
    router = [
        MoeLoad("r", "m", 1, 64, num_tokens_done=done, num_dispatching=2, resident_bytes=0)
        for done in (10, 74)
    ]
    assert rates("moe-router", *router).per_second == {"tokens": 64.0}
    questions = [RagLoad(1, {"search": 1}, True, 0, done, 5) for done in (1, 4)]
    found = rates("rag", *questions)
    assert (found.per_second, found.num_waiting) == ({"questions": 3.0}, None)
    shard = rates("moe-shard-0", ShardLoad(40, 25, 100, num_rows=30, window_s=5.0))
    assert (shard.per_second, shard.usage, shard.num_running) == ({"rows": 6.0}, 0.25, None)


# --- a real router with its shards ------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with moe_cluster_in_thread(moe_folder(tmp_path_factory.mktemp("moe") / "model")) as running:
        yield running


async def test_a_router_tells_its_rate_and_its_busiest_expert(
    cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORRERY_TARGET", cluster.target)
    monkeypatch.setenv("COLUMNS", "80")
    await orrery("moe", "analyze", "It opened in 1873, and cost 4200 pounds.")
    outcome = await orrery("top", "--once", "--interval", "0.1")
    assert outcome.exit_code == 0
    assert "busiest expert" in outcome.stdout
    assert max(map(len, outcome.stdout.splitlines())) <= 80
    frame = json.loads((await orrery("top", "--once", "--interval", "0.1", "--json")).stdout)
    (router,) = frame["services"]
    assert (router["model"], router["num_replicas"]) == (MODEL_NAME, 1)
