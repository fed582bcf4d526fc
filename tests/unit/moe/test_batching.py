from __future__ import annotations

import asyncio

import pytest
import torch
from torch import Tensor

from services.moe.router.batching import Batch, LayerBatcher
from services.moe.router.config import BatchingConfig


class Sums:
    """Gives each caller the number of calls and tokens of its batch, when it is let."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[int]]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.num_running = 0
        self.fails_with: Exception | None = None

    async def __call__(self, batch: Batch[float]) -> list[float]:
        self.batches.append((batch.layer, batch.sizes()))
        self.num_running += 1
        try:
            await self.go.wait()
        finally:
            self.num_running -= 1
        if self.fails_with is not None:
            raise self.fails_with
        return [float(part.sum()) for part in batch.hidden().split(batch.sizes())]


def rows(count: int, value: float = 1.0) -> Tensor:
    return torch.full((count, 2), value)


NEVER_S = 1000.0


def batcher(work: Sums, window_s: float = 0.02, max_tokens: int = 100) -> LayerBatcher[float]:
    """One for whom decoders go on to talk, and whose window may be longer than the settings let."""
    config = BatchingConfig.model_construct(
        window_s=window_s, talking_s=NEVER_S, max_tokens=max_tokens
    )
    return LayerBatcher(work, config)


async def test_one_decoder_alone_does_not_wait() -> None:
    work = Sums()
    b = batcher(work, window_s=NEVER_S)
    async with asyncio.timeout(10):
        for layer in range(5):
            assert await b.submit(layer, rows(2), "a") == 4.0
    assert work.batches == [(layer, [2]) for layer in range(5)]


async def test_decoders_that_talk_share_a_batch_of_the_layer() -> None:
    work = Sums()
    b = batcher(work)
    await asyncio.gather(*(b.submit(0, rows(1), name) for name in "abc"))
    results = await asyncio.gather(*(b.submit(1, rows(n, n), f"{n}") for n in (1, 2, 3)))
    assert results == [2.0, 8.0, 18.0]
    assert work.batches[-1] == (1, [1, 2, 3])


async def test_a_batch_begins_when_all_who_talk_are_there() -> None:
    work = Sums()
    b = batcher(work, window_s=NEVER_S)
    async with asyncio.timeout(10):
        await b.submit(0, rows(1), "a")
        for layer in (1, 2):
            calls = [asyncio.create_task(b.submit(layer, rows(1), name)) for name in "ba"]
            await asyncio.gather(*calls)
    assert work.batches == [(0, [1]), (1, [1, 1]), (2, [1, 1])]


async def test_a_decoder_that_is_silent_is_not_waited_for() -> None:
    work = Sums()
    b = LayerBatcher(work, BatchingConfig.model_construct(
        window_s=NEVER_S, talking_s=0.01, max_tokens=100
    ))  # fmt: skip
    await b.submit(0, rows(1), "a")
    await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        await b.submit(0, rows(1), "b")
    assert work.batches == [(0, [1]), (0, [1])]


@pytest.mark.parametrize("window_s", [0.0, 0.0004, 0.01])
async def test_a_batch_does_not_wait_longer_than_its_window(window_s: float) -> None:
    work = Sums()
    b = batcher(work, window_s=window_s)
    await asyncio.gather(b.submit(0, rows(1), "a"), b.submit(0, rows(1), "b"))
    async with asyncio.timeout(1.0):  # b talks, but says nothing
        await b.submit(1, rows(1), "a")
    assert work.batches[-1] == (1, [1])


async def test_who_waits_for_an_answer_is_not_waited_for() -> None:
    work = Sums()
    b = batcher(work, window_s=NEVER_S)
    work.go.clear()
    calls = [asyncio.create_task(b.submit(0, rows(1), name)) for name in "ab"]
    calls += [asyncio.create_task(b.submit(1, rows(1), "c"))]
    await asyncio.sleep(0.01)
    assert work.batches == [(0, [1]), (0, [1]), (1, [1])]
    work.go.set()
    await asyncio.gather(*calls)


async def test_a_batch_begins_when_those_it_waits_for_ask_for_another_layer() -> None:
    work = Sums()
    b = batcher(work, window_s=NEVER_S)
    async with asyncio.timeout(10):
        await b.submit(0, rows(1), "a")
        waiting = asyncio.create_task(b.submit(1, rows(1), "b"))
        await asyncio.sleep(0.01)
        assert work.batches == [(0, [1])]
        await asyncio.gather(waiting, b.submit(2, rows(1), "a"))


async def test_a_batch_holds_at_most_its_tokens() -> None:
    work = Sums()
    b = batcher(work, max_tokens=4)
    with b.source("x"):
        await b.submit(9, rows(1), "x")
        await asyncio.gather(*(b.submit(0, rows(3), name) for name in "abc"))
    assert [sizes for layer, sizes in work.batches if layer == 0] == [[3], [3], [3]]
    await b.submit(0, rows(50), "a")
    assert work.batches[-1] == (0, [50])


async def test_a_caller_that_leaves_takes_its_tokens_back() -> None:
    work = Sums()
    b = batcher(work, window_s=0.05)
    await asyncio.gather(b.submit(0, rows(1), "a"), b.submit(0, rows(1), "b"))
    with b.source("c"):
        gone = asyncio.create_task(b.submit(1, rows(5), "a"))
        stays = asyncio.create_task(b.submit(1, rows(1), "c"))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
    assert work.batches[-1] == (1, [1])


async def test_a_batch_nobody_waits_for_is_cancelled() -> None:
    work = Sums()
    b = batcher(work)
    work.go.clear()
    call = asyncio.create_task(b.submit(0, rows(1), "a"))
    await asyncio.sleep(0.01)
    assert work.num_running == 1
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await asyncio.sleep(0)
    assert work.num_running == 0


async def test_a_batch_goes_on_for_those_who_stay() -> None:
    work = Sums()
    b = batcher(work)
    work.go.clear()
    calls = [asyncio.create_task(b.submit(0, rows(1), name)) for name in "ab"]
    await asyncio.sleep(0.05)
    calls[0].cancel()
    await asyncio.sleep(0)
    work.go.set()
    assert await calls[1] == 2.0


async def test_a_failure_is_everybodys() -> None:
    work = Sums()
    work.fails_with = ValueError("broken")
    b = batcher(work)
    results = await asyncio.gather(
        *(b.submit(0, rows(1), name) for name in "ab"), return_exceptions=True
    )
    assert [str(result) for result in results] == ["broken", "broken"]
