"""Sends requests and keeps time. Every request it begins has one outcome, whatever happens.

Open loop: requests are sent when they are planned, whether or not earlier ones were answered, as
strangers send them; their latency counts from the planned moment. A closed loop, whose callers wait
for an answer before they ask again, slows down with what it measures: it tells the most that can be
had, not how long strangers wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TypeVar

from orrery.load.arrivals import Arrival
from orrery.load.asks import Ask, Size
from orrery.load.outcomes import Heard, Outcome, Sent, outcome_of

__all__ = ["Drawer", "Hearer", "Transport", "closed_loop", "open_loop"]

T = TypeVar("T")
Hearer = Callable[[Ask, Heard], Awaitable[None]]
Drawer = Callable[[Size | None], tuple[str, Ask]]

_LEAD_S = 0.05  # from planning the first request to the start


@dataclass(frozen=True, slots=True)
class Transport:
    """One way to ask: its name, and what sends a request and listens until its end."""

    name: str
    hear: Hearer


async def open_loop(
    arrivals: Iterable[Arrival], draw: Drawer, transports: Sequence[Transport], drain_s: float
) -> list[Outcome]:
    """Sends each request when it arrives, over the transports in turn.

    What is still under way `drain_s` seconds after the last arrival is cancelled, and ends
    `UNFINISHED`.
    """
    began = time.perf_counter() + _LEAD_S
    tasks = []
    for arrival, transport in zip(arrivals, cycle(transports), strict=False):
        kind, ask = draw(arrival.size)
        planned = began + arrival.at_s
        await asyncio.sleep(max(0.0, planned - time.perf_counter()))
        sent = Sent(kind, transport.name, began, planned, time.perf_counter())
        tasks.append(asyncio.create_task(_one(transport, ask, sent)))
    return await _ended(tasks, drain_s)


async def closed_loop(
    num_callers: int,
    duration_s: float,
    draw: Drawer,
    transports: Sequence[Transport],
    drain_s: float,
) -> list[Outcome]:
    """So many callers, each of whom asks again when answered; none asks after `duration_s`."""
    began = time.perf_counter()
    outcomes: list[Outcome] = []

    async def call(transport: Transport) -> None:
        while (now := time.perf_counter()) < began + duration_s:
            kind, ask = draw(None)
            sent = Sent(kind, transport.name, began, now, now)
            outcomes.append(await _one(transport, ask, sent))

    turns = zip(range(num_callers), cycle(transports), strict=False)
    tasks = [asyncio.create_task(call(transport)) for _, transport in turns]
    await _ended(tasks, duration_s + drain_s)
    return outcomes


async def _one(transport: Transport, ask: Ask, sent: Sent) -> Outcome:
    heard = Heard()
    error: BaseException | None = None
    try:
        await transport.hear(ask, heard)
    except (Exception, asyncio.CancelledError) as failure:  # noqa: BLE001 - it is the outcome
        error = failure
    return outcome_of(sent, heard, error)


async def _ended(tasks: Sequence[asyncio.Task[T]], timeout_s: float) -> list[T]:
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
    return [await task for task in tasks]
