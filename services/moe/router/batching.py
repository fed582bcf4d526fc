"""Tokens of concurrent decoders share a layer's batch.

    decoder a ── layer 3 ──┐
    decoder b ── layer 3 ──┴─> one gate, one call to each shard ──> each its own rows
    decoder c ── layer 1 ────> another batch

A layer's tokens wait for those of other decoders until each that talks is there or waits for an
answer, the batch is full, or the window is over; where only one talks, not at all. A caller that
leaves takes its tokens out of a batch that has not begun; a batch that nobody waits for any more is
cancelled. Knows nothing of gates, shards or gRPC.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from services.moe.router.config import BatchingConfig

__all__ = ["Batch", "LayerBatcher"]

# Event loops sleep in whole milliseconds: a shorter window is passed by looking again and again.
_SHORTEST_SLEEP_S = 0.001

ResultT = TypeVar("ResultT")


@dataclass(eq=False, slots=True)
class _Entry(Generic[ResultT]):
    hidden: Tensor
    source: Hashable
    done: asyncio.Future[ResultT]


@dataclass(eq=False, slots=True)
class Batch(Generic[ResultT]):
    """Tokens of one layer, of one or several callers."""

    layer: int
    entries: list[_Entry[ResultT]] = field(default_factory=list)
    num_tokens: int = 0
    work: asyncio.Task[None] | None = None  # once it has begun

    @property
    def num_calls(self) -> int:
        return len(self.entries)

    def hidden(self) -> Tensor:
        """[num_tokens, hidden_size], the callers' one after another"""
        if len(self.entries) == 1:
            return self.entries[0].hidden
        return torch.cat([entry.hidden for entry in self.entries])

    def sizes(self) -> list[int]:
        """Tokens of each caller."""
        return [len(entry.hidden) for entry in self.entries]


class LayerBatcher(Generic[ResultT]):
    """`run` computes a batch and returns a result for each caller. Used from one event loop."""

    def __init__(
        self,
        run: Callable[[Batch[ResultT]], Awaitable[list[ResultT]]],
        config: BatchingConfig,
    ) -> None:
        self._run = run
        self._config = config
        self._gathering: dict[int, Batch[ResultT]] = {}  # by layer; not begun
        self._begun: set[asyncio.Task[Any]] = set()
        self._last_s: dict[Hashable, float] = {}  # when each source sent its last tokens
        self._asking: Counter[Hashable] = Counter()  # by source: what waits for its output

    @contextmanager
    def source(self, name: Hashable) -> Iterator[None]:
        """A decoder that talks, for as long as it may send tokens."""
        try:
            yield
        finally:
            self._last_s.pop(name, None)
            self._asking.pop(name, None)

    async def submit(self, layer: int, hidden: Tensor, source: Hashable) -> ResultT:
        """The caller's part of a batch. Cancelling it takes its tokens back.

        Raises what `run` raises.
        """
        self._last_s[source] = time.monotonic()
        self._asking[source] += 1
        done: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        entry = _Entry(hidden, source, done)
        try:
            all_are_there = self._all_are_there()
            if all_are_there and layer not in self._gathering:
                self._begin_all()
                return await self._alone(Batch(layer, [entry], len(hidden)))
            batch = self._join(layer, entry)
            if all_are_there:
                self._begin_all()
            try:
                return await done
            finally:
                self._leave(batch, entry)
        finally:
            self._asking[source] -= 1

    async def _alone(self, batch: Batch[ResultT]) -> ResultT:
        """Computes a batch that nobody else can join, in the caller's own task."""
        task = asyncio.current_task()
        assert task is not None
        self._begun.add(task)
        try:
            return (await self._run(batch))[0]
        finally:
            self._begun.discard(task)

    def _join(self, layer: int, entry: _Entry[ResultT]) -> Batch[ResultT]:
        num_tokens = len(entry.hidden)
        batch = self._gathering.get(layer)
        if batch is not None and batch.num_tokens + num_tokens > self._config.max_tokens:
            self._begin(batch)
            batch = None
        if batch is None:
            batch = self._gathering[layer] = Batch(layer)
            self._wait_for_others(batch)
        batch.entries.append(entry)
        batch.num_tokens += num_tokens
        if batch.num_tokens >= self._config.max_tokens:
            self._begin(batch)
        return batch

    async def close(self) -> None:
        """Ends what is under way."""
        self._begin_all()
        for work in self._begun:
            work.cancel()
        await asyncio.gather(*self._begun, return_exceptions=True)

    def _all_are_there(self) -> bool:
        """Whether nobody else is likely to send tokens now."""
        since_s = time.monotonic() - self._config.talking_s
        talking = (source for source, last_s in self._last_s.items() if last_s >= since_s)
        return all(self._asking[source] for source in talking)

    def _wait_for_others(self, batch: Batch[ResultT]) -> None:
        """Has the batch begin when its window is over, unless it has begun by then."""
        loop = asyncio.get_running_loop()
        window_s = self._config.window_s
        if window_s >= _SHORTEST_SLEEP_S:
            loop.call_later(window_s, self._begin, batch)
            return
        end_s = time.monotonic() + window_s

        def look_again() -> None:
            if self._gathering.get(batch.layer) is batch:
                if time.monotonic() >= end_s:
                    self._begin(batch)
                else:
                    loop.call_soon(look_again)

        loop.call_soon(look_again)

    def _begin_all(self) -> None:
        for batch in list(self._gathering.values()):
            self._begin(batch)

    def _begin(self, batch: Batch[ResultT]) -> None:
        if self._gathering.get(batch.layer) is not batch:
            return  # it has
        del self._gathering[batch.layer]
        if batch.entries:
            batch.work = asyncio.create_task(self._compute(batch))
            self._begun.add(batch.work)
            batch.work.add_done_callback(self._begun.discard)

    async def _compute(self, batch: Batch[ResultT]) -> None:
        try:
            results = await self._run(batch)
        except asyncio.CancelledError:
            for entry in batch.entries:
                entry.done.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - given to whom it concerns
            for entry in batch.entries:
                if not entry.done.done():
                    entry.done.set_exception(error)
            return
        for entry, result in zip(batch.entries, results, strict=True):
            if not entry.done.done():
                entry.done.set_result(result)

    def _leave(self, batch: Batch[ResultT], entry: _Entry[ResultT]) -> None:
        if entry.done.done() and not entry.done.cancelled():
            entry.done.exception()  # seen, also where the caller was cancelled in the same moment
            return
        entry.done.cancel()
        if batch.work is None:
            batch.entries.remove(entry)
            batch.num_tokens -= len(entry.hidden)
        elif all(other.done.done() for other in batch.entries):
            batch.work.cancel()
