"""Open and closed loops against real servers over a toy engine, over gRPC and HTTP."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from orrery import Client
from orrery.load.arrivals import Arrival
from orrery.load.asks import Ask, Chat, Completion, Size, draw_ask
from orrery.load.driver import Transport, closed_loop, open_loop
from orrery.load.outcomes import OK, REFUSED, Heard
from orrery.load.transports import TRANSPORTS, connected
from tests.fakes.toy_platform import SETTINGS, SUBJECT, Toy

AT_ONCE = SETTINGS.max_running + SETTINGS.max_waiting


def completion(size: Size | None) -> tuple[str, Ask]:
    return draw_ask("generation", SUBJECT, Random(1), size)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_each_request_of_an_overload_is_answered_whole_or_refused(
    toy: Toy, transport: str
) -> None:
    arrivals = [Arrival(0.0, Size(8, 40))] * (3 * AT_ONCE)
    async with connected(toy.target, [transport]) as transports:
        outcomes = await open_loop(arrivals, completion, transports, drain_s=30)
    assert len(outcomes) == len(arrivals)
    assert {outcome.status for outcome in outcomes} == {OK, REFUSED}
    answered = [outcome for outcome in outcomes if outcome.status == OK]
    refused = [outcome for outcome in outcomes if outcome.status == REFUSED]
    assert len(answered) >= AT_ONCE
    for outcome in answered:
        assert outcome.num_tokens == 40
        assert outcome.first_s is not None
        assert 0 < outcome.first_s <= outcome.first_s + sum(outcome.gaps_s) <= outcome.total_s
    assert all(outcome.retry_after_s for outcome in refused)
    assert all(outcome.first_s is None for outcome in refused)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("workload", ["generation", "chat"])
async def test_streams_are_heard_text_by_text(toy: Toy, transport: str, workload: str) -> None:
    heard = Heard()
    _, ask = draw_ask(workload, SUBJECT, Random(0), Size(8, 12))
    assert isinstance(ask, Completion | Chat)
    async with connected(toy.target, [transport]) as (one,):
        await one.hear(ask, heard)
    assert heard.num_tokens == 12
    assert 1 < len(heard.moments) <= 12
    assert heard.moments == sorted(heard.moments)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_the_platform_does_not_serve_ends_by_its_reason(
    toy: Toy, transport: str
) -> None:
    def unknown(_: Size | None) -> tuple[str, Ask]:
        return "generation", Completion("nobody", (1, 2), 4)

    async with connected(toy.target, [transport]) as transports:
        (outcome,) = await open_loop([Arrival(0.0)], unknown, transports, drain_s=30)
    assert outcome.status == "MODEL_NOT_FOUND"


async def test_what_is_under_way_at_the_end_is_cancelled_and_given_back(toy: Toy) -> None:
    arrivals = [Arrival(0.0, Size(8, 1500))] * 3  # more than a second each
    async with connected(toy.target, TRANSPORTS) as transports:
        outcomes = await open_loop(arrivals, completion, transports, drain_s=0.1)
    assert [outcome.status for outcome in outcomes] == ["UNFINISHED"] * 3
    with Client(toy.target.grpc) as client:
        for _ in range(200):
            if not client.load(SUBJECT.model).num_running:
                return
            await asyncio.sleep(0.02)
    pytest.fail("the engine still runs what nobody reads")


async def test_open_loop_waits_for_no_answer_and_counts_from_the_plan() -> None:
    answered = asyncio.Event()

    async def hear(ask: Ask, heard: Heard) -> None:
        await answered.wait()

    async def answer_later() -> None:
        await asyncio.sleep(0.2)
        answered.set()

    later = asyncio.create_task(answer_later())
    arrivals = [Arrival(0.0), Arrival(0.05), Arrival(0.1)]
    outcomes = await open_loop(arrivals, completion, [Transport("none", hear)], drain_s=30)
    await later
    assert [outcome.planned_s for outcome in outcomes] == pytest.approx([0.0, 0.05, 0.1])
    assert all(outcome.lateness_s < outcome.total_s for outcome in outcomes)
    ends = [outcome.planned_s + outcome.total_s for outcome in outcomes]
    assert max(ends) - min(ends) < 0.05  # all were waiting when it was answered


async def test_transports_take_turns() -> None:
    async def hear(ask: Ask, heard: Heard) -> None:
        heard.text("a")

    transports = [Transport("a", hear), Transport("b", hear)]
    outcomes = await open_loop([Arrival(0.0)] * 4, completion, transports, drain_s=30)
    assert [outcome.transport for outcome in outcomes] == ["a", "b", "a", "b"]


async def test_closed_loop_keeps_its_callers_busy_and_overloads_nobody(toy: Toy) -> None:
    async with connected(toy.target, TRANSPORTS) as transports:
        outcomes = await closed_loop(SETTINGS.max_running, 0.5, completion, transports, 30)
    assert {outcome.status for outcome in outcomes} == {OK}
    assert len(outcomes) >= SETTINGS.max_running
    assert {outcome.transport for outcome in outcomes} == set(TRANSPORTS)
