"""What becomes of requests whose replica is killed, told to stop, or stops with the platform.

Each has exactly one outcome: its whole answer, or `UNAVAILABLE`; or it was not let in, where those
that are left have no room. The last test ends the platform.
The figures are printed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from rich.console import Console

from deploy.processes import find_processes
from deploy.state import PlatformState
from orrery import AsyncClient, OrreryError
from orrery.load.arrivals import Arrival
from orrery.load.asks import Ask, Completion, Size, Subject, draw_ask
from orrery.load.driver import Hearer, Transport, open_loop
from orrery.load.outcomes import OK, REFUSED, Heard, HttpFailure, Outcome
from orrery.load.transports import TRANSPORTS, connected
from tests.integration.two_replicas import DRAIN_LIMIT_S, KEY, TwoReplicas

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

MODEL = "llama"
SHORT = Size(32, 32)  # ends within `DRAIN_LIMIT_S`
LONG = Size(32, 900)  # as long as the model can
NUM_PROMPTS = 4
# The platform's reasons whose status is UNAVAILABLE, and 503.
UNAVAILABLE = {"CONNECTION_LOST", "DEPENDENCY_DOWN", "NOT_READY", "UNAVAILABLE"}
# Where nobody listens any more. And 404: the connection of a stream that ran while the proxy closed
# its front door may bring one more request to the proxy's old process, which finds no gateway.
NOBODY = {"CLIENT_ConnectError", "HTTP_404"}
REPLACED_LIMIT_S = 90

Show = Callable[..., None]


@dataclass
class Load:
    """An open loop over both transports whose answers are known: greedy, to a few prompts."""

    rate: float
    duration_s: float
    sizes: Sequence[Size]
    answers: dict[Ask, set[str]] = field(default_factory=dict)  # the whole ones
    parts: dict[Ask, list[str]] = field(default_factory=dict)  # of those that were cut
    outcomes: list[Outcome] = field(default_factory=list)
    began: float = 0.0  # by `time.perf_counter`, within the driver's lead

    def at(self) -> float:
        """Seconds since the load began, as the outcomes count them."""
        return time.perf_counter() - self.began

    async def run(self, target: TwoReplicas) -> None:
        subject = Subject(MODEL, vocab_size=1000)
        turns = range(int(self.rate * self.duration_s))
        arrivals = [Arrival(turn / self.rate, self.sizes[turn % len(self.sizes)]) for turn in turns]
        rngs = iter([seed % NUM_PROMPTS for seed in turns])

        def draw(size: Size | None) -> tuple[str, Ask]:
            return draw_ask("generation", subject, Random(next(rngs)), size)

        async with connected(target.target, TRANSPORTS) as transports:
            listening = [Transport(one.name, self._noting(one)) for one in transports]
            self.began = time.perf_counter()
            self.outcomes = await open_loop(arrivals, draw, listening, drain_s=60)
        assert len(self.outcomes) == len(arrivals)

    def _noting(self, transport: Transport) -> Hearer:
        async def hear(ask: Ask, heard: Heard) -> None:
            try:
                await transport.hear(ask, heard)
            except (OrreryError, HttpFailure):
                self.parts.setdefault(ask, []).append("".join(heard.texts))
                raise
            self.answers.setdefault(ask, set()).add("".join(heard.texts))

        return hear

    def failed(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.status not in (OK, REFUSED)]

    @property
    def cut_sizes(self) -> set[int]:
        """Tokens that were asked for where a stream has begun and not ended well."""
        asks = [ask for ask, parts in self.parts.items() if any(parts)]
        return {ask.max_tokens for ask in asks if isinstance(ask, Completion)}

    def check_answers(self) -> None:
        """Whole ones say the same, whoever gave them; what came of others is how they begin."""
        for ask, answers in self.answers.items():
            assert len(answers) == 1, ask
            (whole,) = answers
            assert all(whole.startswith(part) for part in self.parts.get(ask, ()))
        sizes = {size.output_tokens for size in self.sizes}
        assert {o.num_tokens for o in self.outcomes if o.status == OK} <= sizes


def of_status(outcomes: Iterable[Outcome], *statuses: str) -> list[Outcome]:
    return [one for one in outcomes if one.status in statuses]


def running_at(outcomes: Iterable[Outcome], moment_s: float) -> Iterator[Outcome]:
    for one in outcomes:
        if one.planned_s + one.lateness_s <= moment_s < one.planned_s + one.total_s:
            yield one


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Prints figures, whether or not the test passes."""

    def print_figures(name: str, **figures: object) -> None:
        lines = [f"  {key.replace('_', ' ')}: {value}" for key, value in figures.items()]
        with capsys.disabled():
            Console().print("\n".join(["", name, *lines]), highlight=False, markup=False)

    return print_figures


async def process_ids(client: AsyncClient) -> set[int]:
    """Of the replicas that answer. Calls go to them in turn."""
    loads = await asyncio.gather(*(client.load(MODEL) for _ in range(8)), return_exceptions=True)
    return {load.process_id for load in loads if not isinstance(load, BaseException)}


async def wait_for_replicas(client: AsyncClient, num: int, gone: frozenset[int]) -> set[int]:
    async with asyncio.timeout(REPLACED_LIMIT_S):
        while True:
            found = await process_ids(client)
            if len(found) == num and not found & gone:
                return found
            await asyncio.sleep(0.2)


async def busiest(client: AsyncClient, least: int) -> tuple[int, int]:
    """A replica that runs at least so many sequences, and how many it has taken."""
    async with asyncio.timeout(30):
        while True:
            load = await client.load(MODEL)
            if load.num_running >= least:
                return load.process_id, load.num_running + load.num_waiting


async def test_killed_replica_fails_only_what_it_ran_and_is_replaced(
    two_replicas: TwoReplicas, show: Show
) -> None:
    load = Load(rate=6.0, duration_s=16.0, sizes=[Size(32, 128)])
    async with AsyncClient(two_replicas.state.grpc, api_key=KEY, max_retries=0) as client:
        await wait_for_replicas(client, 2, frozenset())
        running = asyncio.create_task(load.run(two_replicas))
        await asyncio.sleep(4)
        victim, num_taken = await busiest(client, least=2)
        os.kill(victim, signal.SIGKILL)
        killed_s = load.at()
        await wait_for_replicas(client, 2, frozenset({victim}))
        whole_s = load.at() - killed_s
        await running

    failed = load.failed()
    survived = [one for one in running_at(load.outcomes, killed_s) if one.status == OK]
    show(
        "kill -9 of one of two replicas",
        requests=len(load.outcomes),
        ok=len(of_status(load.outcomes, OK)),
        refused=len(of_status(load.outcomes, REFUSED)),
        failed=dict(Counter(f"{one.transport} {one.status}" for one in failed)),
        taken_by_the_dead_one=num_taken,
        running_then=len(list(running_at(load.outcomes, killed_s))),
        whole_again_after=f"{whole_s:.1f} s",
    )
    assert {one.status for one in failed} <= UNAVAILABLE
    # What came to it between the question and the kill, and what was on its way then.
    assert 0 < len(failed) <= num_taken + load.rate
    assert all(one.planned_s < killed_s + whole_s for one in failed)
    assert all(one.retry_after_s is not None for one in failed)
    assert survived
    load.check_answers()


async def test_replica_that_is_told_to_stop_ends_what_it_took(
    two_replicas: TwoReplicas, show: Show
) -> None:
    load = Load(rate=6.0, duration_s=14.0, sizes=[*[SHORT] * 5, LONG])
    async with AsyncClient(two_replicas.state.grpc, api_key=KEY, max_retries=0) as client:
        await wait_for_replicas(client, 2, frozenset())
        running = asyncio.create_task(load.run(two_replicas))
        await asyncio.sleep(3)
        await asyncio.to_thread(two_replicas.scale, {"llama": 1, "gateway": 1})
        applied_s = load.at()
        await wait_for_replicas(client, 1, frozenset())
        await running
    failed = load.failed()
    show(
        "one of two replicas taken away",
        requests=len(load.outcomes),
        ok=len(of_status(load.outcomes, OK)),
        refused=len(of_status(load.outcomes, REFUSED)),
        failed=dict(Counter(f"{one.transport} {one.status}" for one in failed)),
        ended=sorted((round(o.planned_s, 1), round(o.planned_s + o.total_s, 1)) for o in failed),
        applied_at=round(applied_s, 1),
    )
    assert {one.status for one in failed} <= UNAVAILABLE
    assert load.cut_sizes <= {LONG.output_tokens}
    load.check_answers()


async def test_platform_that_is_told_to_stop_ends_what_it_took_and_leaves_nothing(
    two_replicas: TwoReplicas, show: Show
) -> None:
    """The last with this platform: afterwards nothing runs."""
    load = Load(rate=6.0, duration_s=14.0, sizes=[SHORT, SHORT, LONG])
    running = asyncio.create_task(load.run(two_replicas))
    await asyncio.sleep(4)
    two_replicas.process.send_signal(signal.SIGTERM)
    told_s = load.at()
    status = await asyncio.to_thread(two_replicas.process.wait, 120)
    took_s = load.at() - told_s
    await running

    taken = list(running_at(load.outcomes, told_s))
    later = [one for one in load.outcomes if one.planned_s > told_s]
    cut = [one for one in taken if one in load.failed()]
    show(
        "SIGTERM under load",
        requests=len(load.outcomes),
        running_then=len(taken),
        ended_ok=len(of_status(taken, OK)),
        cut=dict(Counter(f"{one.transport} {one.status}" for one in cut)),
        ended=sorted((o.transport, round(o.planned_s + o.total_s - told_s, 1)) for o in cut),
        later=dict(Counter(f"{one.transport} {one.status}" for one in later)),
        took=f"{took_s:.1f} s",
    )
    assert status == 0
    assert find_processes(two_replicas.state.platform_id) == []
    assert PlatformState.load(two_replicas.data_dir) is None
    assert {one.status for one in load.outcomes if one.planned_s <= told_s} <= {
        OK,
        REFUSED,
        *UNAVAILABLE,
    }
    assert {one.status for one in later} <= {OK, REFUSED, *UNAVAILABLE, *NOBODY}
    # What was cut had had its time; all that needed less has its answer.
    assert load.cut_sizes <= {LONG.output_tokens}
    assert all(one.planned_s + one.total_s - told_s >= DRAIN_LIMIT_S for one in cut)
    assert of_status(taken, OK)
    load.check_answers()
