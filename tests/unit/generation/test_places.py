"""Many prompts of one caller in an engine that others use, too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from services.engine.errors import QueueFullError
from services.generation.places import Places


class Engine:
    """Runs so many at a time and refuses the others; `end` lets one of them end."""

    def __init__(self, num_places: int) -> None:
        self.num_places = num_places
        self.num_running = 0
        self.most_running = 0
        self._turns = asyncio.Semaphore(0)

    async def end(self, count: int = 1) -> None:
        """One after another, each once all have run that can."""
        for _ in range(count):
            await asyncio.sleep(0.001)
            self._turns.release()

    def work(self, name: int) -> Callable[[], Awaitable[int]]:
        async def work() -> int:
            if self.num_running >= self.num_places:
                raise QueueFullError("full")
            self.num_running += 1
            self.most_running = max(self.most_running, self.num_running)
            try:
                await self._turns.acquire()
            finally:
                self.num_running -= 1
            return name

        return work


async def test_prompts_refused_beside_their_siblings_run_when_those_have_ended() -> None:
    engine, places = Engine(num_places=2), Places(limit=5)
    tasks = [asyncio.create_task(places.run(engine.work(name))) for name in range(9)]
    await engine.end(9)
    assert await asyncio.gather(*tasks) == list(range(9))
    assert engine.most_running == 2


async def test_prompts_are_refused_when_none_of_them_has_a_place() -> None:
    engine, places = Engine(num_places=0), Places(limit=3)
    results = await asyncio.gather(
        *(places.run(engine.work(name)) for name in range(7)), return_exceptions=True
    )
    assert all(isinstance(result, QueueFullError) for result in results)


async def test_another_error_or_a_cancel_of_one_makes_place_for_the_next() -> None:
    engine, places = Engine(num_places=1), Places(limit=2)

    async def fail() -> int:
        raise ValueError("not about places")

    first = asyncio.create_task(places.run(engine.work(1)))
    await asyncio.sleep(0)
    second = asyncio.create_task(places.run(engine.work(2)))
    await asyncio.sleep(0)
    first.cancel()
    await engine.end()
    assert await second == 2
    with pytest.raises(ValueError, match="not about"):
        await places.run(fail)


async def test_no_more_than_the_limit_are_tried_at_a_time() -> None:
    engine, places = Engine(num_places=100), Places(limit=3)
    tasks = [asyncio.create_task(places.run(engine.work(name))) for name in range(10)]
    await engine.end(10)
    await asyncio.gather(*tasks)
    assert engine.most_running == 3
