"""Searches that wait together are answered together; cancelled ones cost nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from services.retrieval.index import batching
from services.retrieval.index.batching import SearchBatcher
from services.retrieval.index.generation import Generation
from services.retrieval.types import Comparison, Operator, Query, SearchMode, SearchOptions
from services.runtime.errors import InvalidRequest, Overloaded
from tests.unit.retrieval.index.reference import (
    DIMENSIONS,
    document,
    index_of,
    random_documents,
    unit_vectors,
)

OPTIONS = SearchOptions(SearchMode.HYBRID, k=5, num_candidates=5)


class Gate:
    """An executor with one thread that does nothing until it is opened."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(1)
        self.open = threading.Event()
        self.executor.submit(self.open.wait)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()
    made.executor.shutdown()


@pytest.fixture(scope="module")
def generation() -> Generation:
    return index_of(random_documents(np.random.default_rng(0), 40)).generation


def queries(number: int) -> list[Query]:
    vectors = unit_vectors(np.random.default_rng(1), number, DIMENSIONS)
    return [Query("red castle", vector) for vector in vectors]


async def test_waiting_searches_share_a_batch_and_get_their_own_hits(
    gate: Gate, generation: Generation
) -> None:
    sizes: list[int] = []
    batcher = SearchBatcher(gate.executor, max_batch=4, on_batch=lambda n, _: sizes.append(n))
    asked = queries(10)
    tasks = [asyncio.create_task(batcher.search(generation, q, OPTIONS)) for q in asked]
    await asyncio.sleep(0)
    assert (batcher.num_running, batcher.num_waiting) == (1, 9)
    gate.open.set()
    found = await asyncio.gather(*tasks)
    assert sizes == [1, 4, 4, 1]
    assert (batcher.num_running, batcher.num_waiting) == (0, 0)
    expected = generation.candidates(asked, OPTIONS)
    for hits, own in zip(found, expected, strict=True):
        assert [(h.document.id, h.ordinal, h.score) for h in hits] == [
            (h.document.id, h.ordinal, h.score) for h in own
        ]


async def test_other_options_and_generations_are_other_batches(gate: Gate) -> None:
    one, other = (
        index_of([document("a", metadata={"v": value}), document("b")]).generation
        for value in (1.0, True)
    )
    filters = [Comparison("v", Operator.EQ, (value,)) for value in (1.0, True)]
    sizes: list[int] = []
    batcher = SearchBatcher(gate.executor, on_batch=lambda n, _: sizes.append(n))
    (query,) = queries(1)
    cases = [
        (generation, SearchOptions(SearchMode.DENSE, filter=condition), limit)
        for generation in (one, other)
        for condition in filters
        for limit in (None, 1)
    ]
    blocked = asyncio.create_task(batcher.search(one, query, OPTIONS))
    tasks = [
        asyncio.create_task(batcher.search(generation, query, options, limit=limit))
        for generation, options, limit in cases * 2
    ]
    await asyncio.sleep(0)
    gate.open.set()
    await blocked
    found = await asyncio.gather(*tasks)
    assert sizes == [1] + [2] * len(cases)
    for (generation, options, _), hits in zip(cases * 2, found, strict=True):
        same = (generation is one) is (options.filter is filters[0])
        assert len(hits) == same


async def test_cancelled_search_is_not_searched(gate: Gate, generation: Generation) -> None:
    sizes: list[int] = []
    batcher = SearchBatcher(gate.executor, on_batch=lambda n, _: sizes.append(n))
    tasks = [asyncio.create_task(batcher.search(generation, q, OPTIONS)) for q in queries(5)]
    await asyncio.sleep(0)
    for task in tasks[2:4]:
        task.cancel()
    await asyncio.sleep(0)
    assert batcher.num_waiting == 2
    gate.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sizes == [1, 2]
    cancelled = [isinstance(result, asyncio.CancelledError) for result in results]
    assert cancelled == [False, False, True, True, False]
    assert batcher.num_waiting == batcher.num_running == 0


async def test_search_cancelled_while_it_runs_leaves_the_others(
    gate: Gate, generation: Generation
) -> None:
    batcher = SearchBatcher(gate.executor)
    first, second = queries(2)
    running = asyncio.create_task(batcher.search(generation, first, OPTIONS))
    waiting = asyncio.create_task(batcher.search(generation, second, OPTIONS))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.sleep(0)
    gate.open.set()
    assert len(await waiting) == 5
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_full_queue_is_overloaded(gate: Gate, generation: Generation) -> None:
    waiting: list[int] = []
    batcher = SearchBatcher(gate.executor, max_waiting=2, on_queue=waiting.append)
    asked = queries(4)
    tasks = [asyncio.create_task(batcher.search(generation, q, OPTIONS)) for q in asked[:3]]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await batcher.search(generation, asked[3], OPTIONS)
    assert refused.value.retry_after_s is not None
    tasks[2].cancel()
    await asyncio.sleep(0)
    fourth = asyncio.create_task(batcher.search(generation, asked[3], OPTIONS))
    gate.open.set()
    assert len(await fourth) == 5
    assert max(waiting) == 2
    assert waiting[-1] == batcher.num_waiting == 0


async def test_query_that_does_not_fit_fails_alone(gate: Gate, generation: Generation) -> None:
    batcher = SearchBatcher(gate.executor)
    (query,) = queries(1)
    wrong = Query("red", np.ones(DIMENSIONS + 1, dtype=np.float32))
    good = asyncio.create_task(batcher.search(generation, query, OPTIONS))
    with pytest.raises(InvalidRequest):
        await batcher.search(generation, wrong, OPTIONS)
    gate.open.set()
    assert len(await good) == 5


async def test_failure_of_a_batch_reaches_every_search_of_it(generation: Generation) -> None:
    executor = ThreadPoolExecutor(1)
    batcher = SearchBatcher(executor)
    executor.shutdown()
    results = await asyncio.gather(
        *(batcher.search(generation, q, OPTIONS) for q in queries(3)), return_exceptions=True
    )
    assert all(isinstance(result, RuntimeError) for result in results)
    assert batcher.num_waiting == batcher.num_running == 0


async def test_callers_answered_together_are_waited_for(
    gate: Gate, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_GATHER_SHARE", 1e9)
    monkeypatch.setattr(batching, "_MAX_GATHER_S", 3600.0)
    sizes: list[int] = []
    batcher = SearchBatcher(gate.executor, on_batch=lambda n, _: sizes.append(n))
    asked = queries(4)
    first = asyncio.create_task(batcher.search(generation, asked[0], OPTIONS))
    await asyncio.sleep(0)  # runs alone, so that the others are one batch
    others = [asyncio.create_task(batcher.search(generation, q, OPTIONS)) for q in asked[1:]]
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(first, *others)
    again = []
    for query in asked[1:]:
        again.append(asyncio.create_task(batcher.search(generation, query, OPTIONS)))
        await asyncio.sleep(0.005)  # a batch would have begun
        assert batcher.num_waiting == len(again) % 3
    await asyncio.gather(*again)
    assert sizes == [1, 3, 3]


async def test_callers_who_do_not_come_back_hold_up_nobody(
    gate: Gate, generation: Generation
) -> None:
    sizes: list[int] = []
    batcher = SearchBatcher(gate.executor, on_batch=lambda n, _: sizes.append(n))
    asked = queries(5)
    tasks = [asyncio.create_task(batcher.search(generation, q, OPTIONS)) for q in asked]
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(*tasks)
    async with asyncio.timeout(10):
        await batcher.search(generation, asked[0], OPTIONS)
        await batcher.search(generation, asked[0], OPTIONS)
    assert sizes == [1, 4, 1, 1]
