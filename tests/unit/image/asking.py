"""Asking the engine for pictures of toys, and waiting for what its threads do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import numpy as np

from services.image.loop.async_engine import AsyncImageEngine
from services.image.loop.limits import EngineLimits
from services.image.loop.stats import EngineLoad, StepStats
from services.image.types import Event, Finished, PictureRequest, Progress

__all__ = ["LIMITS", "Recorder", "accepted", "collect", "is_empty", "picture", "until"]

LIMITS = EngineLimits(max_running=4, max_waiting=6, max_pixels_per_call=200)


class Recorder:
    def __init__(self) -> None:
        self.steps: list[StepStats] = []
        self.loads: list[EngineLoad] = []

    def step_finished(self, stats: StepStats) -> None:
        self.steps.append(stats)

    def load_changed(self, load: EngineLoad) -> None:
        self.loads.append(load)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to be")


def is_empty(engine: AsyncImageEngine) -> bool:
    load = engine.load()
    held = (load.num_running, load.num_waiting, load.num_decoding, load.state_bytes)
    workers = engine._workers
    return held == (0, 0, 0, 0) and workers._line.preparing is None and not workers._jobs


async def collect(
    engine: AsyncImageEngine, request: PictureRequest, in_s: float | None = None
) -> list[Event]:
    deadline_s = None if in_s is None else time.monotonic() + in_s
    async with aclosing(engine.stream(request, deadline_s=deadline_s)) as stream:
        return [event async for event in stream]


async def picture(engine: AsyncImageEngine, request: PictureRequest) -> np.ndarray:
    last = (await collect(engine, request))[-1]
    assert isinstance(last, Finished)
    return last.pixels


async def accepted(engine: AsyncImageEngine, request: PictureRequest, **options: Any) -> Any:
    """A stream whose first event was read."""
    stream = engine.stream(request, **options)
    first = await anext(stream)
    assert isinstance(first, Progress)
    assert first.step == 0
    return stream
