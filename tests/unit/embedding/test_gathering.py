"""Works of many callers in few threads: order, turns, sharing of trips, failure, leaving."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from services.embedding.gathering import GatheringPool


@pytest.fixture
def one_thread() -> Iterator[GatheringPool]:
    pool = GatheringPool(num_threads=1, max_cost=10, name="test")
    yield pool
    pool.close()


class Gate:
    """Work that notes what it did, and in which trip; it stands until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.done: list[str] = []

    def __call__(self, item: str) -> str:
        self.entered.set()
        assert self.opened.wait(10)
        self.done.append(item)
        return item.upper()


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, 10)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("cost", [1, 4, 100])
async def test_results_are_in_the_order_of_the_items(num_threads: int, cost: int) -> None:
    pool = GatheringPool(num_threads, max_cost=10, name="test")
    counts = [0, 1, 7, 40]

    async def call(count: int) -> list[int]:
        return await pool.map(lambda n: n * n, range(count), [cost] * count)

    results = await asyncio.gather(*(call(count) for count in counts))
    assert results == [[n * n for n in range(count)] for count in counts]
    pool.close()


async def test_callers_take_turns(one_thread: GatheringPool) -> None:
    gate = Gate()
    first = asyncio.create_task(one_thread.map(gate, ["x"], [1]))
    await entered(gate)
    many = asyncio.create_task(one_thread.map(gate, [f"m{n}" for n in range(20)], [5] * 20))
    await asyncio.sleep(0)
    single = asyncio.create_task(one_thread.map(gate, ["s"], [5]))
    await asyncio.sleep(0)
    gate.opened.set()
    assert await single == ["S"]
    assert gate.done.index("s") <= 3
    assert len(await many) == 20
    assert await first == ["X"]


async def test_small_pieces_of_many_callers_share_a_trip(
    one_thread: GatheringPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, trips = Gate(), []
    loop = asyncio.get_running_loop()
    run_in_executor = loop.run_in_executor

    def counted(executor: object, function: Callable[..., object], trip: list[object]) -> object:
        trips.append(len(trip))
        return run_in_executor(executor, function, trip)  # type: ignore[arg-type]

    blocked = asyncio.create_task(one_thread.map(gate, ["x"], [1]))
    await entered(gate)
    monkeypatch.setattr(loop, "run_in_executor", counted)
    calls = [asyncio.create_task(one_thread.map(gate, [f"{n}"], [1])) for n in range(20)]
    large = asyncio.create_task(one_thread.map(gate, ["large"], [1000]))
    await asyncio.sleep(0)
    gate.opened.set()
    assert await asyncio.gather(blocked, large, *calls)
    assert trips == [10, 10, 1]


async def test_failure_is_its_callers_alone(one_thread: GatheringPool) -> None:
    def work(item: int) -> int:
        if item < 0:
            raise ValueError(f"{item} is negative")
        return item

    good = asyncio.create_task(one_thread.map(work, [1, 2], [1, 1]))
    bad = asyncio.create_task(one_thread.map(work, [3, -4, -5], [1, 1, 1]))
    assert await good == [1, 2]
    with pytest.raises(ValueError, match="-4 is negative"):
        await bad
    assert await one_thread.map(work, [6], [1]) == [6]


async def test_what_a_cancelled_caller_left_is_not_done(one_thread: GatheringPool) -> None:
    gate = Gate()
    first = asyncio.create_task(one_thread.map(gate, ["x"], [1]))
    await entered(gate)
    leaving = asyncio.create_task(one_thread.map(gate, ["a", "b"], [1, 1]))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.opened.set()
    assert await first == ["X"]
    assert await one_thread.map(gate, ["c"], [1]) == ["C"]
    assert gate.done == ["x", "c"]
