"""Locks by key, calls that are shared."""

from __future__ import annotations

import asyncio

from services.retrieval.concurrency import KeyedLocks, SharedCall


async def test_lock_of_a_key_is_held_by_one_in_order_of_arrival() -> None:
    locks = KeyedLocks()
    order: list[int] = []

    async def hold(number: int) -> None:
        async with locks.hold("a"):
            order.append(number)
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*(hold(number) for number in range(5)))
    assert order == [number for number in range(5) for _ in range(2)]
    assert len(locks) == 0


async def test_locks_of_different_keys_do_not_wait_for_each_other() -> None:
    locks = KeyedLocks()
    async with locks.hold("a"), locks.hold("b"):
        assert len(locks) == 2
    assert len(locks) == 0


async def test_waiter_that_gives_up_leaves_no_lock() -> None:
    locks = KeyedLocks()

    async def hold() -> None:
        async with locks.hold("a"):
            pass

    async with locks.hold("a"):
        waiter = asyncio.create_task(hold())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])
        assert len(locks) == 1
    assert len(locks) == 0


async def test_shared_call_begins_after_every_caller_asked() -> None:
    starts: list[int] = []
    asked = 0

    async def call() -> None:
        starts.append(asked)
        await asyncio.sleep(0.002)

    shared = SharedCall(call)

    async def ask() -> None:
        nonlocal asked
        asked += 1
        mine = asked
        await shared()
        assert starts[-1] >= mine

    first = asyncio.create_task(ask())
    await asyncio.sleep(0.001)
    await asyncio.gather(first, *(ask() for _ in range(10)))
    assert len(starts) == 2


async def test_shared_call_that_fails_fails_for_all_and_works_again() -> None:
    fails = True

    async def call() -> None:
        if fails:
            raise KeyError("away")

    shared = SharedCall(call)
    outcomes = await asyncio.gather(*(shared() for _ in range(3)), return_exceptions=True)
    assert all(isinstance(outcome, KeyError) for outcome in outcomes)
    fails = False
    await shared()


async def test_cancelled_caller_leaves_the_shared_call_to_the_others() -> None:
    release = asyncio.Event()
    shared = SharedCall(release.wait)  # type: ignore[arg-type]
    gone, stays = asyncio.create_task(shared()), asyncio.create_task(shared())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    release.set()
    await stays
