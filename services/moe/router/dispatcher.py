"""A sparse layer whose experts are elsewhere: hidden states in, the layer's output out.

    batch ── gate ── within capacity ── rows by expert ── exchange ── weighted sum ── each its part

The same functions as the engine's local layer, in the same order: the same bits, where its products
give a row the same whatever is around it. Knows nothing of gRPC or protobuf.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor

from services.engine.layers.moe import combine, group_by_expert
from services.moe.router.batching import Batch, LayerBatcher
from services.moe.router.capacity import Capacity
from services.moe.router.config import RouterConfig
from services.moe.router.exchange import Exchange, ExpertRows, Progress
from services.moe.router.gates import LayerGates, Routed
from services.moe.router.load import LoadWindow
from services.moe.router.metrics import RouterMetrics
from services.runtime.errors import DeadlineExceeded, DependencyDown, Overloaded
from services.runtime.offload import offload_if_large

__all__ = ["INLINE_NUMBERS", "Dispatched", "Dispatcher"]

# Numbers of a batch's hidden states; computing on more would hold up the event loop.
INLINE_NUMBERS = 1 << 18
# A caller is told that experts are missing a moment before its own clock cuts the call.
_MARGIN_SHARE, _MOST_MARGIN_S = 0.1, 0.25
_RETRY_AFTER_S = 0.1  # of a call that comes while too many wait
_LOST_RETRY_AFTER_S = 1.0  # of one that waited in vain for a shard

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Dispatched:
    """A caller's part of a batch: its tokens' output, and how they were routed."""

    hidden: Tensor  # [T, hidden_size]
    routed: Routed
    placement_version: int
    num_dropped: int


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """A batch, ready to be sent."""

    routed: Routed
    weights: Tensor  # float32 [T, k], zero where dropped
    positions: Tensor  # int64 [T, k]: rows of each token
    rows: ExpertRows
    dropped: Tensor | None  # int64 [T]: slots of each token


class Dispatcher:
    """The sparse layers of one model. Used from one event loop."""

    def __init__(
        self,
        gates: LayerGates,
        exchange: Exchange,
        capacity: Capacity | None,
        load: LoadWindow,
        metrics: RouterMetrics,
        config: RouterConfig,
    ) -> None:
        self._gates = gates
        self._exchange = exchange
        self._capacity = capacity
        self._load = load
        self._metrics = metrics
        self._limits = config.limits
        self._progress: dict[int, Progress] = {}  # of each call's batch, by the id of its tensor
        self.batcher = LayerBatcher[Dispatched](self._run, config.batching)
        self.num_waiting_tokens = 0  # of calls that have no output yet
        self.num_tokens_done = 0

    @property
    def num_attempts(self) -> int:
        """Calls to shards under way."""
        return self._exchange.num_attempts

    async def dispatch(
        self, layer: int, hidden: Tensor, source: Hashable, deadline_s: float
    ) -> Dispatched:
        """hidden [T, hidden_size] of a sparse layer; `deadline_s` is on `time.monotonic`.

        Raises `DependencyDown` where experts cannot be reached in time, `DeadlineExceeded` where it
        was only slow, `Overloaded` where too many tokens wait already.
        """
        started_s = time.monotonic()
        left_s = deadline_s - started_s
        left_s -= min(_MOST_MARGIN_S, _MARGIN_SHARE * left_s)
        try:
            with self._waiting(len(hidden)):
                async with asyncio.timeout(left_s):
                    done = await self.batcher.submit(layer, hidden, source)
        except TimeoutError:
            raise _late(self._progress.get(id(hidden))) from None
        finally:
            self._progress.pop(id(hidden), None)
        self._metrics.dispatched(layer, time.monotonic() - started_s)
        self.num_tokens_done += len(hidden)
        return done

    async def close(self) -> None:
        """Ends what is under way."""
        await self.batcher.close()

    @contextmanager
    def _waiting(self, num_tokens: int) -> Iterator[None]:
        """Counts them for as long as they take memory: also while shards are waited for."""
        waiting = self.num_waiting_tokens
        if waiting + num_tokens > self._limits.max_waiting_tokens:
            raise Overloaded(f"{waiting} tokens wait already", retry_after_s=_RETRY_AFTER_S)
        self.num_waiting_tokens += num_tokens
        try:
            yield
        finally:
            self.num_waiting_tokens -= num_tokens

    async def _run(self, batch: Batch[Dispatched]) -> list[Dispatched]:
        progress = Progress()
        for entry in batch.entries:
            if not entry.done.done():  # its caller has not left
                self._progress[id(entry.hidden)] = progress
        hidden = batch.hidden()
        plan = await self._offloaded(hidden, lambda: self._plan(batch.layer, hidden))
        rows = await self._exchange.compute(plan.rows, progress)
        output = await self._offloaded(hidden, lambda: self._combine(plan, rows))
        # After the answer has left: no decoder waits for it.
        asyncio.get_running_loop().call_later(0, self._count, batch, plan)
        return _shares(batch, plan, output, progress.placement_version)

    async def _offloaded(self, hidden: Tensor, work: Callable[[], T]) -> T:
        return await offload_if_large(hidden.numel(), work, above=INLINE_NUMBERS)

    @torch.inference_mode()
    def _plan(self, layer: int, hidden: Tensor) -> _Plan:
        routed = self._gates.route(layer, hidden)
        num_experts = routed.logits.shape[1]
        fitted, weights, expert_ids = None, routed.weights, routed.expert_ids
        if self._capacity is not None:
            fitted = self._capacity.fit(routed)
            # What is dropped makes a last group, which is nobody's.
            expert_ids = fitted.expert_ids.masked_fill(~fitted.kept, num_experts)
            weights = fitted.weights
        groups = group_by_expert(expert_ids)
        num_groups = len(groups.expert_ids) - (groups.expert_ids[-1] == num_experts)
        stops = list(accumulate(groups.counts))
        rows = ExpertRows(
            layer=layer,
            hidden=hidden,
            token_ids=groups.token_ids,
            expert_ids=groups.expert_ids[:num_groups],
            starts=[0, *stops][:num_groups],
            stops=stops[:num_groups],
        )
        dropped = None if fitted is None else (~fitted.kept).sum(dim=1)
        return _Plan(routed, weights, groups.positions, rows, dropped)

    @torch.inference_mode()
    def _count(self, batch: Batch[Dispatched], plan: _Plan) -> None:
        num_dropped = 0 if plan.dropped is None else int(plan.dropped.sum())
        routed = plan.routed
        counts = routed.expert_ids.flatten().bincount(minlength=routed.logits.shape[1])
        self._load.routed(
            batch.layer,
            counts.cpu().numpy(),
            float(routed.entropies.sum()),
            batch.num_tokens,
            num_dropped,
        )
        self._metrics.batch(batch.layer, batch.num_calls, batch.num_tokens, num_dropped)

    @torch.inference_mode()
    def _combine(self, plan: _Plan, rows: Tensor) -> Tensor:
        output = combine(rows, plan.positions, plan.weights)
        return self._gates.add_shared(plan.rows.layer, plan.rows.hidden, output)


def _late(progress: Progress | None) -> DependencyDown | DeadlineExceeded:
    """What a call is told whose time is up. None: its batch has not begun."""
    if progress is not None and progress.waits_for is not None:
        return DependencyDown(
            f"no shard that holds {progress.waits_for} answers", retry_after_s=_LOST_RETRY_AFTER_S
        )
    return DeadlineExceeded("the deadline passed before the experts had answered", stage="dispatch")


def _shares(
    batch: Batch[Dispatched], plan: _Plan, output: Tensor, placement_version: int
) -> list[Dispatched]:
    """Of each caller."""
    sizes = batch.sizes()
    num_dropped = [0] * len(sizes)
    if plan.dropped is not None:
        num_dropped = [int(slots.sum()) for slots in torch.split(plan.dropped, sizes)]
    shares = zip(torch.split(output, sizes), plan.routed.split(sizes), num_dropped, strict=True)
    return [
        Dispatched(hidden, routed, placement_version, dropped) for hidden, routed, dropped in shares
    ]
