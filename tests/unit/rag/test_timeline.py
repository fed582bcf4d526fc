"""Stages as they run: timed, limited, counted."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.rag.deadlines import Budget
from services.rag.running import Running
from services.rag.timeline import Timeline
from services.rag.types import StageTime
from services.runtime.errors import DeadlineExceeded, InvalidRequest, Overloaded
from services.runtime.peer import Caller


def timeline(total_s: float, running: Running, **shares: float) -> Timeline:
    now = time.monotonic()
    budget = Budget(now, now + total_s, shares, tuple(shares))
    return Timeline(Caller("id", None, now + total_s), budget, running, lambda *_: None)


def unlimited() -> Running:
    return Running(10, lambda _: None, lambda _: None)


async def test_stage_beyond_its_cutoff_is_cancelled_and_named() -> None:
    running = unlimited()
    stages = timeline(0.2, running, embed=0.1, generate=0.8)
    cancelled = asyncio.Event()

    async def stuck() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with (
        pytest.raises(DeadlineExceeded, match="in stage 'embed'") as caught,
        stages.stage("embed") as stage,
    ):
        await stage.run(stuck())
    assert caught.value.stage == "embed"
    assert cancelled.is_set()
    assert stages.stages[0].duration_ns < 0.19e9, "it ate what was kept for generating"
    assert running.by_stage == {}


async def test_deadline_of_another_service_is_told_as_this_stage() -> None:
    stages = timeline(1.0, unlimited(), search=0.1)
    with pytest.raises(DeadlineExceeded) as caught, stages.stage("search"):
        raise DeadlineExceeded("there", stage="rerank")
    assert caught.value.stage == "search"
    assert "search 0 ms" in caught.value.message


async def test_other_errors_pass_as_they_are_and_are_timed() -> None:
    stages = timeline(1.0, unlimited(), search=0.1)
    with pytest.raises(InvalidRequest, match="wrong"), stages.stage("search"):
        raise InvalidRequest("wrong")
    assert [stage.stage for stage in stages.stages] == ["search"]


async def test_calls_of_a_stage_carry_its_cutoff() -> None:
    stages = timeline(1.0, unlimited(), embed=0.1, generate=0.5)
    with stages.stage("embed") as stage:
        assert stage.caller.left_s() <= 0.5
    with stages.stage("generate") as stage:
        assert stage.caller.left_s() > 0.9


async def test_timeout_of_the_work_itself_is_not_ours() -> None:
    stages = timeline(1.0, unlimited(), embed=0.1)

    async def broken() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError), stages.stage("embed") as stage:
        await stage.run(broken())


async def test_inner_stages_stand_below_theirs() -> None:
    stages = timeline(1.0, unlimited())
    with stages.stage("search"):
        pass
    with stages.stage("pack"):
        pass
    stages.add_inner("search", [StageTime("rerank", 10, 20, "3 passages")])
    assert [stage.stage for stage in stages.stages] == ["search", "search.rerank", "pack"]
    assert stages.stages[1].start_ns == stages.stages[0].start_ns + 10


def test_running_counts_questions_and_stages_and_refuses_too_many() -> None:
    seen: list[int] = []
    usage: list[float] = []
    running = Running(2, seen.append, usage.append)
    with running.admitted(), running.question(), running.stage("embed"):
        assert (running.num_running, running.by_stage) == (1, {"embed": 1})
        with pytest.raises(Overloaded) as caught, running.admitted(2):
            pass
        assert caught.value.retry_after_s
    with running.admitted(2):
        pass
    assert (running.num_running, running.by_stage, seen) == (0, {}, [1, 0])
    assert usage == [0.5, 0, 1, 0]
