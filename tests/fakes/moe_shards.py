"""Expert shards in this process, without gRPC, that fail as a test tells them to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from torch import Tensor

from services.moe.expert_key import ExpertKey
from services.moe.router.shards import ShardReport
from services.moe.shard.expert_store import ExpertLoader, ExpertStore
from services.moe.shard_work import ShardWork
from services.runtime.errors import DependencyDown, OrreryError

__all__ = ["FakeShard"]

WEIGHT_HASH = "the weights"


class FakeShard:
    """A `services.moe.router.shards.ShardClient` over a real `ExpertStore`.

    `gone`: nobody answers. `hangs`: calls to compute never end. `fails_with`: they end with that.
    `refuses_reports`: so many more probes fail.
    """

    def __init__(self, name: str, load: ExpertLoader, max_experts: int = 100) -> None:
        self.name = name
        self.gone = False
        self.hangs = False
        self.delay_s = 0.0
        self.fails_with: OrreryError | None = None
        self.num_calls = 0
        self.num_rows = 0
        self.num_hanging = 0
        self.num_reports = 0
        self.refuses_reports = 0
        self.calls: list[ShardWork] = []
        self._load = load
        self._max_experts = max_experts
        self.store = ExpertStore(load, 1, max_experts)

    def restart(self) -> None:
        """As a replaced replica: it answers, and holds nothing."""
        self.store = ExpertStore(self._load, 1, self._max_experts)
        self.gone = self.hangs = False

    async def compute(self, work: ShardWork, timeout_s: float) -> Tensor:
        self.num_calls += 1
        self.calls.append(work)
        await self._answering()
        if self.fails_with is not None:
            raise self.fails_with
        if self.hangs:
            self.num_hanging += 1
            try:
                await asyncio.sleep(1000)
            finally:
                self.num_hanging -= 1
        await asyncio.sleep(self.delay_s)
        await self._answering()
        out = self.store.compute(work)
        self.num_rows += len(work.rows)
        return out

    async def load(self, keys: Iterable[ExpertKey], timeout_s: float) -> None:
        await self._answering()
        self.store.load(keys)

    async def drop(self, keys: Iterable[ExpertKey], timeout_s: float) -> None:
        await self._answering()
        self.store.drop(keys)

    async def report(self, timeout_s: float) -> ShardReport:
        self.num_reports += 1
        await self._answering()
        if self.refuses_reports:
            self.refuses_reports -= 1
            raise DependencyDown(f"the service {self.name!r} does not answer")
        held = frozenset(self.store.keys)
        return ShardReport(WEIGHT_HASH, held, self._max_experts)

    async def _answering(self) -> None:
        await asyncio.sleep(0)
        if self.gone:
            raise DependencyDown(f"the service {self.name!r} does not answer")


def all_held(shards: Mapping[str, FakeShard]) -> dict[str, list[ExpertKey]]:
    """What each holds now."""
    return {name: shard.store.keys for name, shard in shards.items()}
