"""The asyncio side: streams, cancellation, slow readers, several loops, closing and death."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from services.engine.async_engine import AsyncEngine
from services.engine.errors import (
    ContextTooLongError,
    EngineDeadError,
    InvalidRequestError,
    QueueFullError,
)
from services.engine.request import FinishReason, Request, RequestOutput, SamplingParams
from tests.unit.engine.toy import ToyRunner, continuation, toy_engine

PROMPT = [1, 2, 3]


class Gate:
    """Lets the toy model take a step only when told to."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._permits = threading.Semaphore(0)
        self.runner = engine._engine.runner
        assert isinstance(self.runner, ToyRunner)
        self.runner.before_step = self._wait

    def _wait(self) -> None:
        assert self._permits.acquire(timeout=10)

    def let(self, steps: int) -> None:
        self._permits.release(steps)


def make(**settings: Any) -> AsyncEngine:
    return AsyncEngine(toy_engine(**settings))


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    engine = make()
    yield engine
    await engine.close()


def request(name: str = "r", **params: Any) -> Request:
    return Request(name, PROMPT, SamplingParams(**params))


async def collect(engine: AsyncEngine, asked: Request) -> RequestOutput:
    whole: RequestOutput | None = None
    async for output in engine.generate(asked):
        if whole is None:
            whole = output
        else:
            whole.extend(output)
    assert whole is not None
    assert whole.finished
    return whole


async def until_taken(engine: AsyncEngine) -> None:
    """Until the step thread has all that was asked of it, and waits within its step."""
    for _ in range(500):
        if engine._active and not engine._inbox and not engine._at_hand:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the step thread does not take what is asked of it")


async def until_idle(engine: AsyncEngine) -> None:
    for _ in range(500):
        load = engine.load()
        if load.num_running == load.num_waiting == 0 and not engine._active:
            assert load.num_free_blocks == load.num_blocks
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"still busy: {engine.load()}")


async def test_stream_gives_every_token_once(engine: AsyncEngine) -> None:
    output = await collect(engine, request(max_tokens=20))
    assert output.outputs[0].token_ids == continuation(PROMPT, 20)
    assert output.outputs[0].finish_reason is FinishReason.LENGTH


async def test_many_streams_at_once_keep_apart(engine: AsyncEngine) -> None:
    requests = [request(str(i), max_tokens=3 + i % 7, n=1 + i % 3) for i in range(40)]
    outputs = await asyncio.gather(*(collect(engine, asked) for asked in requests))
    for asked, output in zip(requests, outputs, strict=True):
        assert output.request_id == asked.request_id
        for completion in output.outputs:
            expected = continuation(PROMPT, 3 + int(asked.request_id) % 7, completion.index)
            assert completion.token_ids == expected
    await until_idle(engine)


async def test_closing_the_generator_aborts(engine: AsyncEngine) -> None:
    async with aclosing(engine.generate(request(max_tokens=50))) as stream:
        async for _ in stream:
            break
    await until_idle(engine)
    assert engine.load().num_finished == 1


async def test_cancelling_the_reader_aborts(engine: AsyncEngine) -> None:
    gate = Gate(engine)
    task = asyncio.create_task(collect(engine, request(max_tokens=50)))
    gate.let(3)
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.let(100)
    await until_idle(engine)


async def test_five_hundred_random_cancels_leave_nothing(engine: AsyncEngine) -> None:
    rng = random.Random(7)

    async def cut(number: int) -> None:
        asked = request(str(number), max_tokens=rng.randint(1, 40), n=rng.randint(1, 3))
        stop_after = rng.randint(0, 20)
        await asyncio.sleep(rng.random() * 0.5)
        async with aclosing(engine.generate(asked)) as stream:
            if stop_after == 0:  # before the first output
                task = asyncio.ensure_future(anext(stream))
                await asyncio.sleep(rng.random() * 0.002)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return
            async for _ in stream:
                stop_after -= 1
                if stop_after == 0:
                    return

    await asyncio.gather(*(cut(number) for number in range(500)))
    await until_idle(engine)
    await engine.close()
    engine._engine.check_integrity()
    assert engine.load().num_finished > 0
    assert not engine._streams


async def test_slow_reader_finds_one_merged_output(engine: AsyncEngine) -> None:
    async with aclosing(engine.generate(request(max_tokens=30))) as stream:
        first = await anext(stream)
        time.sleep(0.3)  # noqa: ASYNC251 - the whole loop is stuck, and its readers with it
        rest = [output async for output in stream]
    assert len(rest) <= 2
    tokens = first.outputs[0].token_ids + [t for o in rest for t in o.outputs[0].token_ids]
    assert tokens == continuation(PROMPT, 30)


async def test_invalid_request_is_refused_at_once(engine: AsyncEngine) -> None:
    with pytest.raises(InvalidRequestError):
        await collect(engine, Request("r", [], SamplingParams()))
    with pytest.raises(ContextTooLongError):
        await collect(engine, Request("r", [1] * 100, SamplingParams()))
    assert engine._thread is None  # it never came to the step thread


async def test_request_id_in_use_is_refused(engine: AsyncEngine) -> None:
    gate = Gate(engine)
    first = asyncio.create_task(collect(engine, request("same", max_tokens=2)))
    await asyncio.sleep(0)
    with pytest.raises(InvalidRequestError, match="in use"):
        await collect(engine, request("same"))
    gate.let(10)
    await first
    await collect(engine, request("same", max_tokens=2))


async def test_request_id_of_a_reader_that_left_is_free_at_once(engine: AsyncEngine) -> None:
    gate = Gate(engine)
    async with aclosing(engine.generate(request("same", max_tokens=50))) as stream:
        gate.let(1)
        await anext(stream)
    second = asyncio.create_task(collect(engine, request("same", max_tokens=4)))
    await asyncio.sleep(0.02)  # its step of the first request still runs
    gate.let(100)
    output = await second
    assert output.outputs[0].token_ids == continuation(PROMPT, 4)
    assert output.num_output_tokens == 4


async def test_full_queue_raises_for_the_one_beyond_it() -> None:
    engine = make(max_num_seqs=1, max_num_waiting=1)
    gate = Gate(engine)
    tasks = [asyncio.create_task(collect(engine, request(str(i), max_tokens=2))) for i in range(4)]
    await asyncio.sleep(0.02)
    gate.let(100)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [result for result in results if isinstance(result, QueueFullError)]
    assert len(refused) >= 1
    assert all(isinstance(result, RequestOutput | QueueFullError) for result in results)
    await until_idle(engine)
    await engine.close()


async def test_one_too_many_is_refused_while_a_step_still_runs() -> None:
    engine = make(max_num_seqs=1, max_num_waiting=1)
    gate = Gate(engine)
    running = asyncio.create_task(collect(engine, request("runs", max_tokens=2)))
    await until_taken(engine)
    waiting = asyncio.create_task(collect(engine, request("waits", max_tokens=2)))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError) as refused:
        await collect(engine, request("too many"))
    assert refused.value.retry_after_s >= 1
    gate.let(100)
    await asyncio.gather(running, waiting)
    await until_idle(engine)
    await engine.close()


async def test_a_reader_that_leaves_makes_place_at_once() -> None:
    engine = make(max_num_seqs=1, max_num_waiting=0)
    gate = Gate(engine)
    running = asyncio.create_task(collect(engine, request("leaves", max_tokens=50)))
    await until_taken(engine)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    follows = asyncio.create_task(collect(engine, request("follows", max_tokens=2)))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await collect(engine, request("too many"))
    gate.let(100)
    assert (await follows).num_output_tokens == 2
    await until_idle(engine)
    await engine.close()


async def test_deadline_in_the_queue_ends_the_stream_as_deadline() -> None:
    engine = make(max_num_seqs=1)
    gate = Gate(engine)
    first = asyncio.create_task(collect(engine, request("a", max_tokens=3)))
    gate.let(1)
    await asyncio.sleep(0.02)
    late = request("b", max_tokens=3)
    late.deadline_s = time.monotonic() + 0.05
    second = asyncio.create_task(collect(engine, late))
    await asyncio.sleep(0.1)
    gate.let(100)
    output = await second
    assert output.outputs[0].finish_reason is FinishReason.DEADLINE
    assert output.num_output_tokens == 0
    assert (await first).num_output_tokens == 3
    await engine.close()


async def test_error_of_one_request_reaches_its_reader_alone(engine: AsyncEngine) -> None:
    runner = engine._engine.runner
    assert isinstance(runner, ToyRunner)
    runner.poisoned.add("bad")
    good, bad = await asyncio.gather(
        collect(engine, request("good", max_tokens=8)), collect(engine, request("bad"))
    )
    assert good.error is None
    assert isinstance(bad.error, RuntimeError)
    assert bad.outputs[0].finish_reason is FinishReason.ERROR
    assert engine.failure is None


async def test_step_that_does_not_end_is_told_until_it_does() -> None:
    engine = make(stuck_after_s=0.05)
    gate = Gate(engine)
    asked = asyncio.create_task(collect(engine, request(max_tokens=2)))
    await asyncio.sleep(0.2)
    assert "a step has been under way" in str(engine.failure)
    gate.let(2)
    await asked
    await until_idle(engine)
    await asyncio.sleep(0.1)  # nothing to do is no reason
    assert engine.failure is None
    await engine.close()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
async def test_steps_stand_behind_whoever_talks_to_callers(engine: AsyncEngine) -> None:
    await collect(engine, request(max_tokens=1))
    assert engine._thread is not None
    assert engine._thread.native_id is not None
    step, loop = engine._thread.native_id, threading.get_native_id()
    assert os.getpriority(os.PRIO_PROCESS, step) > os.getpriority(os.PRIO_PROCESS, loop)


async def test_idle_engine_sleeps(engine: AsyncEngine) -> None:
    await collect(engine, request(max_tokens=2))
    await until_idle(engine)
    await asyncio.sleep(0.05)
    looks = 0

    def count() -> bool:
        nonlocal looks
        looks += 1
        return False

    engine._engine.has_unfinished = count  # type: ignore[method-assign]
    await asyncio.sleep(0.2)
    assert looks == 0
    del engine._engine.has_unfinished
    await collect(engine, request(max_tokens=1))  # and it wakes up again


async def test_close_ends_every_stream_and_refuses_later_ones() -> None:
    engine = make()
    gate = Gate(engine)
    tasks = [
        asyncio.create_task(collect(engine, request(str(i), max_tokens=40, n=2))) for i in range(3)
    ]
    gate.let(2)
    await asyncio.sleep(0.02)
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0.02)
    gate.let(100)
    await closing
    for output in await asyncio.gather(*tasks):
        reasons = {completion.finish_reason for completion in output.outputs}
        assert reasons == {FinishReason.CANCELLED}
    assert engine.failure is not None
    with pytest.raises(EngineDeadError):
        await collect(engine, request("later"))
    await engine.close()  # closing twice is fine


async def test_dead_engine_ends_open_streams_and_refuses_later_ones() -> None:
    engine = make()
    gate = Gate(engine)
    tasks = [asyncio.create_task(collect(engine, request(str(i)))) for i in range(3)]
    gate.let(1)
    await asyncio.sleep(0.02)

    def crash(now: float) -> Any:
        raise AssertionError("a broken invariant")

    schedule = engine._engine.scheduler.schedule
    engine._engine.scheduler.schedule = crash  # type: ignore[method-assign]
    gate.let(100)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, EngineDeadError) for result in results)
    assert engine.failure is not None
    with pytest.raises(EngineDeadError, match="broken invariant"):
        await collect(engine, request("later"))
    await engine.close()
    engine._engine.scheduler.schedule = schedule  # type: ignore[method-assign]
    for name in list(engine._engine._states):
        engine._engine.abort(name)


def test_several_event_loops_share_an_engine() -> None:
    engine = make()
    failures: list[BaseException] = []

    async def work(base: int) -> None:
        requests = [request(f"{base}-{i}", max_tokens=5) for i in range(10)]
        for output in await asyncio.gather(*(collect(engine, asked) for asked in requests)):
            assert output.outputs[0].token_ids == continuation(PROMPT, 5)

    def run(base: int) -> None:
        try:
            asyncio.run(work(base))
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(base,)) for base in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    asyncio.run(engine.close())


def test_loop_that_dies_under_its_reader_does_not_keep_its_request() -> None:
    engine = make()
    gate = Gate(engine)
    loop = asyncio.new_event_loop()
    stream = engine.generate(request(max_tokens=50))
    gate.let(1)
    loop.run_until_complete(anext(stream))
    loop.close()  # without closing the generator

    async def rest() -> None:
        gate.let(1000)
        await until_idle(engine)
        await engine.close()

    asyncio.run(rest())
