"""Every input answered exactly once, whatever cancels; no batch over its budget; fair turns."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.embedding.batcher import Batcher, BatchStats, Job
from services.runtime.errors import DeadlineExceeded, NotReady, Overloaded
from services.runtime.work_health import WorkHealth

MAX_TOKENS = 64
NEVER_S = 3600.0


class StepExecutor(Executor):
    """Runs what it was given when told to, in the test's own thread."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def step(self) -> bool:
        """Runs one; False when there is none."""
        if not self.waiting:
            return False
        future, work = self.waiting.popleft()
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - as a real executor does
            future.set_exception(error)
        return True


class Recorder:
    """A fake model and observer: remembers every batch; a payload's result is the payload twice."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.stats: list[BatchStats] = []
        self.failing = False

    def compute(self, payloads: Sequence[str]) -> list[str]:
        self.batches.append(list(payloads))
        if self.failing:
            raise ValueError("broken")
        return [payload * 2 for payload in payloads]

    def batch_finished(self, stats: BatchStats) -> None:
        self.stats.append(stats)

    def queue_changed(self, num_waiting: int, num_running: int) -> None:
        assert num_waiting >= 0
        assert num_running >= 0


class Bench:
    """A batcher over a fake model, moved by hand."""

    def __init__(self, max_tokens: int = MAX_TOKENS, max_waiting: int = 10_000) -> None:
        self.now_s = 0.0
        self.model = Recorder()
        self.executor = StepExecutor()
        self.batcher: Batcher[str, str] = Batcher(
            self.model.compute,
            self.executor,
            max_tokens,
            max_waiting,
            self.model,
            WorkHealth("a batch", 60.0, lambda: self.now_s),
        )

    def call(self, *jobs: Job[str], in_s: float = NEVER_S) -> asyncio.Task[Any]:
        return asyncio.create_task(self.batcher.run(jobs, time.monotonic() + in_s))

    async def settle(self) -> None:
        """Lets everything happen that needs no batch."""
        for _ in range(6):
            await asyncio.sleep(0)

    async def step(self) -> bool:
        await self.settle()
        stepped = self.executor.step()
        await self.settle()
        return stepped

    async def finish(self) -> None:
        while await self.step():
            pass


def job(name: str, num_tokens: int = 8) -> Job[str]:
    return Job(name.encode(), num_tokens, name)


def named(number: int) -> Job[str]:
    """A number's job: its length follows from it, as a key's does."""
    return job(f"{number}.", 1 + number * 7 % 90)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.lists(st.integers(0, 40), min_size=1, max_size=12)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("step"), st.just(None)),
        st.tuples(st.just("settle"), st.just(None)),
    ),
    max_size=30,
)


@given(ACTIONS)
def test_every_input_is_answered_exactly_once_whatever_cancels(
    actions: list[tuple[str, Any]],
) -> None:
    async def scenario() -> None:
        bench = Bench()
        calls: list[tuple[list[int], asyncio.Task[Any]]] = []
        for action, argument in actions:
            if action == "call":
                calls.append((argument, bench.call(*map(named, argument))))
            elif action == "cancel" and calls:
                calls[argument % len(calls)][1].cancel()
            elif action == "step":
                await bench.step()
            else:
                await bench.settle()
        await bench.finish()
        for numbers, task in calls:
            assert task.done()
            if not task.cancelled():
                assert task.result().results == [f"{number}." * 2 for number in numbers]
        assert (bench.batcher.num_waiting, bench.batcher.num_running) == (0, 0)
        asked = {f"{number}." for numbers, _ in calls for number in numbers}
        for batch in bench.model.batches:
            assert len(set(batch)) == len(batch), "an input twice in a batch"
            assert asked.issuperset(batch)
            lengths = [named(int(float(name))).num_tokens for name in batch]
            assert len(batch) == 1 or len(batch) * max(lengths) <= MAX_TOKENS

    asyncio.run(scenario())


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60, unique=True))
def test_nothing_is_computed_for_a_call_cancelled_before_its_batch(numbers: list[int]) -> None:
    async def scenario() -> None:
        bench = Bench()
        running = bench.call(job("running"))
        await bench.settle()
        cancelled = bench.call(*map(named, numbers))
        await bench.settle()
        assert bench.batcher.num_waiting == len(numbers)
        cancelled.cancel()
        await bench.settle()
        assert bench.batcher.num_waiting == 0
        await bench.finish()
        assert bench.model.batches == [["running"]]
        assert running.result().results == ["running" * 2]

    asyncio.run(scenario())


async def test_inputs_repeated_in_a_call_and_across_calls_are_computed_once() -> None:
    bench = Bench()
    first = bench.call(job("a"), job("b"), job("a"))
    second = bench.call(job("b"), job("c"))
    await bench.finish()
    assert bench.model.batches == [["a", "b", "c"]]
    assert first.result().results == ["aa", "bb", "aa"]
    assert second.result().results == ["bb", "cc"]
    assert bench.model.stats[0].num_callers_inputs == 5


async def test_a_call_joins_an_input_that_is_running() -> None:
    bench = Bench()
    first = bench.call(job("a"))
    await bench.settle()
    second = bench.call(job("a"))
    await bench.finish()
    assert bench.model.batches == [["a"]]
    assert first.result().results == second.result().results == ["aa"]


async def test_a_shared_input_stays_when_one_of_its_callers_leaves() -> None:
    bench = Bench()
    running = bench.call(job("running"))
    await bench.settle()
    leaves, stays = bench.call(job("a"), job("b")), bench.call(job("b"))
    await bench.settle()
    leaves.cancel()
    await bench.finish()
    assert bench.model.batches == [["running"], ["b"]]
    assert stays.result().results == ["bb"]
    assert running.result().results == ["running" * 2]


async def test_an_input_whose_caller_leaves_while_it_runs_is_told_as_orphaned() -> None:
    bench = Bench()
    leaves = bench.call(job("a"), job("b"))
    await bench.settle()
    leaves.cancel()
    await bench.finish()
    assert [stats.num_orphaned for stats in bench.model.stats] == [2]


async def test_a_call_in_time_is_dropped_from_the_queue_when_its_deadline_passes() -> None:
    bench = Bench()
    running = bench.call(job("running"))
    await bench.settle()
    late = bench.call(job("late"), in_s=0.02)
    with pytest.raises(DeadlineExceeded):
        await late
    assert bench.batcher.num_waiting == 0
    await bench.finish()
    assert bench.model.batches == [["running"]]
    assert running.done()


async def test_an_expired_input_is_not_computed_when_the_loop_is_behind() -> None:
    bench = Bench()
    running = bench.call(job("running"))
    await bench.settle()
    late = bench.call(job("late"), in_s=0.01)
    await bench.settle()
    time.sleep(0.03)  # the loop is held up: its timers are behind  # noqa: ASYNC251
    bench.executor.step()
    await bench.finish()
    assert bench.model.batches == [["running"]]
    assert running.done()
    with pytest.raises(DeadlineExceeded):
        await late


async def test_more_than_may_wait_is_refused_and_nothing_of_it_stays() -> None:
    bench = Bench(max_waiting=3)
    accepted = bench.call(job("a"), job("b"))
    await bench.settle()  # both are running now
    waiting = bench.call(job("c"), job("d"))
    refused = bench.call(job("e"), job("f"))
    await bench.settle()
    with pytest.raises(Overloaded) as caught:
        await refused
    assert caught.value.retry_after_s is not None
    assert bench.batcher.num_waiting == 2
    await bench.finish()
    assert accepted.result().results == ["aa", "bb"]
    assert waiting.result().results == ["cc", "dd"]


async def test_a_small_call_does_not_wait_behind_a_large_one() -> None:
    bench = Bench()
    large = bench.call(*(job(f"large{number}") for number in range(100)))
    await bench.settle()
    small = bench.call(job("small"))
    await bench.step()
    await bench.step()
    assert small.done()
    assert not large.done()
    await bench.finish()
    assert len(large.result().results) == 100


async def test_an_input_is_not_starved_by_others_of_another_length() -> None:
    bench = Bench()
    running = bench.call(job("running"))
    await bench.settle()
    short = [bench.call(job(f"short{number}", 4)) for number in range(40)]
    bulk = bench.call(*(job(f"bulk{number}", 4) for number in range(40)))
    long = bench.call(job("long", 60))
    for number in range(40, 1000):  # newcomers all the time, as many as can be served
        if long.done() and bulk.done():
            break
        short += [bench.call(job(f"short{number}.{i}", 4)) for i in range(16)]
        await bench.step()
    assert long.done()
    assert bulk.done()
    assert not all(task.done() for task in short)
    await bench.finish()
    assert running.done()
    assert all(task.done() for task in short)


async def test_inputs_of_like_length_share_a_batch() -> None:
    bench = Bench(max_tokens=400)
    running = bench.call(job("running"))
    await bench.settle()
    mixed = bench.call(
        *(job(f"{kind}{i}", length) for i in range(4) for kind, length in (("s", 35), ("l", 90)))
    )
    await bench.finish()
    kinds = [{name[0] for name in batch} for batch in bench.model.batches[1:]]
    assert kinds == [{"s"}, {"l"}]
    assert running.done()
    assert mixed.done()


async def test_an_input_over_the_budget_goes_alone() -> None:
    bench = Bench(max_tokens=10)
    call = bench.call(job("a", 4), job("huge", 50), job("b", 4))
    await bench.finish()
    assert call.result().results == ["aa", "hugehuge", "bb"]
    assert ["huge"] in bench.model.batches


async def test_a_failed_batch_fails_its_callers_and_only_them() -> None:
    bench = Bench()
    bench.model.failing = True
    failed = bench.call(job("a"))
    await bench.step()
    with pytest.raises(RuntimeError):
        await failed
    bench.model.failing = False
    assert bench.batcher.failure is None
    served = bench.call(job("a"))
    await bench.finish()
    assert served.result().results == ["aa"]
    assert [stats.failed for stats in bench.model.stats] == [True, False]


async def test_batches_that_keep_failing_make_it_unhealthy_until_one_does_not() -> None:
    bench = Bench()
    bench.model.failing = True
    for number in range(3):
        failing = bench.call(job(str(number)))
        await bench.step()
        assert isinstance(failing.exception(), RuntimeError)
    assert bench.batcher.failure is not None
    bench.model.failing = False
    served = bench.call(job("a"))
    await bench.finish()
    assert served.done()
    assert bench.batcher.failure is None


async def test_a_batch_that_does_not_end_makes_it_unhealthy_until_it_does() -> None:
    bench = Bench()
    call = bench.call(job("a"))
    await bench.settle()
    bench.now_s = 61.0
    assert bench.batcher.failure == "a batch has been under way for 61 s"
    await bench.finish()
    assert call.done()
    bench.now_s = 600.0  # nothing to do is no reason
    assert bench.batcher.failure is None


async def test_close_refuses_what_waits_and_finishes_what_runs() -> None:
    bench = Bench()
    running = bench.call(job("running"))
    await bench.settle()
    waiting = bench.call(job("waiting"))
    await bench.settle()
    closing = asyncio.create_task(bench.batcher.close())
    await bench.settle()
    assert not closing.done()
    await bench.finish()
    await closing
    assert running.result().results == ["running" * 2]
    assert isinstance(waiting.exception(), NotReady)
    with pytest.raises(NotReady):
        await bench.batcher.run([job("new")], time.monotonic() + 1)


async def test_times_tell_waiting_from_computing() -> None:
    bench = Bench()
    first = bench.call(job("a"))
    await bench.settle()
    second = bench.call(job("b"))
    await bench.settle()
    await asyncio.sleep(0.02)
    await bench.finish()
    assert second.result().queue_s >= 0.02 > first.result().queue_s
    assert first.result().compute_s >= 0.02


async def test_no_inputs_are_answered_at_once() -> None:
    assert (await Bench().batcher.run([], 0.0)).results == []
