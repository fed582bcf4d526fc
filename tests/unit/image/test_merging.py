"""Several streams as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from services.image.merging import merged


class Source:
    """Counts from 0, a pause before each item; knows whether it was closed."""

    def __init__(self, length: int, pause_s: float = 0.0, fails_at: int | None = None) -> None:
        self.length = length
        self.pause_s = pause_s
        self.fails_at = fails_at
        self.is_open = False
        self.num_given = 0

    async def stream(self) -> AsyncGenerator[tuple[int, int], None]:
        self.is_open = True
        try:
            for number in range(self.length):
                await asyncio.sleep(self.pause_s)
                if number == self.fails_at:
                    raise ValueError(f"at {number}")
                self.num_given += 1
                yield id(self), number
        finally:
            self.is_open = False


async def test_every_item_comes_once_and_each_streams_in_order() -> None:
    sources = [Source(length) for length in (5, 0, 30)]
    items = [item async for item in merged([source.stream for source in sources])]
    assert len(items) == 35
    for source in sources:
        assert [n for of, n in items if of == id(source)] == list(range(source.length))
    assert not any(source.is_open for source in sources)


async def test_failure_ends_the_others_after_what_came_before_it() -> None:
    failing, endless = Source(5, fails_at=3), Source(1 << 30, pause_s=0.001)
    items: list[tuple[int, int]] = []

    async def read() -> None:
        async for item in merged([endless.stream, failing.stream]):
            items.append(item)  # noqa: PERF401 - what came before the failure is looked at

    with pytest.raises(ValueError, match="at 3"):
        await read()
    assert [n for of, n in items if of == id(failing)] == [0, 1, 2]
    assert not endless.is_open


async def test_leaving_closes_all_before_it_returns() -> None:
    sources = [Source(1 << 30, pause_s=0.001) for _ in range(3)]
    async with aclosing(merged([source.stream for source in sources])) as items:
        await anext(items)
    assert not any(source.is_open for source in sources)


async def test_cancelled_reader_closes_all() -> None:
    sources = [Source(1 << 30, pause_s=0.001) for _ in range(3)]

    async def read() -> None:
        async with aclosing(merged([source.stream for source in sources])) as items:
            async for _ in items:
                pass

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.02)
    assert all(source.num_given for source in sources)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert not any(source.is_open for source in sources)


async def test_streams_wait_for_a_reader_that_is_slow() -> None:
    source = Source(1000)
    async with aclosing(merged([source.stream])) as items:
        await anext(items)
        for _ in range(100):
            await asyncio.sleep(0)
        assert source.num_given < 10
