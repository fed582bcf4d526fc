from __future__ import annotations

import asyncio

import pytest

from services.runtime.run_all import run_all


async def test_run_all_gives_results_in_order() -> None:
    async def late(number: int) -> int:
        await asyncio.sleep(0.003 - number / 1000)
        return number

    assert await run_all(late(number) for number in range(3)) == [0, 1, 2]


async def test_first_failure_ends_the_others_and_is_raised_itself() -> None:
    cancelled = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await run_all([forever(), fail()])
    assert cancelled.is_set()


async def test_cancelling_run_all_cancels_what_runs() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def forever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.create_task(run_all([forever()]))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()
