"""The shards as the router knows them: who answers, who holds what, how long a call usually takes.

A task for each shard asks it how it is, often while it is lost or in doubt. A shard is lost once
its connection has failed twice, or it has left several probes in a row without an answer and has
answered nothing else meanwhile: one that is only slow is not. One that comes back without the
experts that the placement gives it is told to load them, and counts again once it has; what it
holds beside them is dropped. Whoever waits for an expert is woken at each change.

    ready ──doubt(), probes──> lost ──answers──> loads what is missing ──> ready
      └───incomplete()──────────────────────────────────^

Knows nothing of tensors, batches or gRPC.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.moe.expert_key import ExpertKey
from services.moe.router.config import FailureConfig
from services.moe.router.placement import Homes, Placement, PlacementTable
from services.moe.router.shards import ShardClient, ShardReport
from services.runtime.errors import DeadlineExceeded, DependencyDown, NotReady, OrreryError

__all__ = ["GONE", "Fleet", "Shard"]

# What a call to a shard that is gone, going or silent ends with.
GONE = (DependencyDown, NotReady, DeadlineExceeded)

_LOG = logging.getLogger("orrery.moe.fleet")
_MOST_MISSED = 3  # probes in a row
_REST_S = 0.05  # of a shard that said it has too much to do, or that is in doubt
_NUM_REMEMBERED = 64  # calls, for what is usual
_NUM_BETWEEN = 16  # calls after which that is looked at again


@dataclass(eq=False)
class Shard:
    """One shard and what is known of it."""

    name: str
    client: ShardClient
    report: ShardReport | None = None
    ready: frozenset[ExpertKey] = frozenset()
    lost_s: float | None = field(default_factory=time.monotonic)  # since when
    incomplete_s: float | None = None  # since when an expert is missing that it should hold
    rests_until_s: float = 0.0
    heard_s: float = 0.0  # when it last answered anything
    num_missed: int = 0  # probes without an answer, in a row
    in_doubt: bool = False  # its connection has failed, and it has answered nothing since
    # What is known of it changes with each answer: one question at a time.
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    probe_now: asyncio.Event = field(default_factory=asyncio.Event)
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_NUM_REMEMBERED))
    _seconds_per_row: deque[float] = field(default_factory=lambda: deque(maxlen=_NUM_REMEMBERED))
    _usual: tuple[float, float] | None = None  # seconds of a call, and of a row
    _num_took: int = 0

    def took(self, num_rows: int, seconds: float) -> None:
        """A call has been answered."""
        self.heard()
        self._seconds.append(seconds)
        self._seconds_per_row.append(seconds / num_rows)
        self._num_took += 1
        if self._num_took % _NUM_BETWEEN == 0:
            median = statistics.median
            self._usual = median(self._seconds), median(self._seconds_per_row)

    def usual_s(self, num_rows: int) -> float | None:
        """Of a call with so many rows; None while too few are known."""
        if self._usual is None:
            return None
        of_call, of_row = self._usual
        return max(of_call, of_row * num_rows)

    def heard(self) -> None:
        """It has answered: it is there."""
        self.heard_s = time.monotonic()
        self.num_missed, self.in_doubt = 0, False


class Fleet:
    """All shards of a model. Used from one event loop; `start` and `close` it there."""

    def __init__(
        self,
        clients: Mapping[str, ShardClient],
        table: PlacementTable,
        weight_hash: str,
        config: FailureConfig,
    ) -> None:
        self.table = table
        # Held by whoever moves experts: until then, nothing is dropped that a placement to come
        # may need.
        self.moving = asyncio.Lock()
        self._shards = {name: Shard(name, client) for name, client in clients.items()}
        self._weight_hash = weight_hash
        self._config = config
        self._changed: asyncio.Future[None] | None = None
        self._watches: list[asyncio.Task[None]] = []

    @property
    def watched(self) -> bool:
        """False once nobody looks after a shard any more."""
        return not any(watch.done() for watch in self._watches)

    @property
    def hindrance(self) -> str | None:
        """Why some tokens cannot be computed now; None = each expert is where it can be asked."""
        homes, shards = self.table.current.homes, self._shards
        num_away = sum(
            not any(name in shards and key in shards[name].ready for name in names)
            for key, names in homes.items()
        )
        if not num_away:
            return None
        lost = [name for name, shard in shards.items() if shard.lost_s is not None]
        where = f"; lost: {', '.join(lost)}" if lost else ""
        return f"{num_away} of {len(homes)} experts are loaded by no shard that answers{where}"

    @property
    def shards(self) -> Mapping[str, Shard]:
        """By name, in the order of the configuration."""
        return self._shards

    def start(self, reports: Mapping[str, ShardReport]) -> None:
        """Begins to look after the shards. `reports`: of those that have been asked already."""
        for name, report in reports.items():
            self._found(self._shards[name], report)
        self._watches = [asyncio.create_task(self._watch(s)) for s in self._shards.values()]

    async def close(self) -> None:
        """Stops looking after them."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)

    # --- who can be asked --------------------------------------------------------------------

    def holders(self, key: ExpertKey, homes: Sequence[str]) -> list[Shard]:
        """Those of an expert's homes that can be asked for it now."""
        now_s = time.monotonic()
        found = [self._shards[name] for name in homes if name in self._shards]
        return [s for s in found if key in s.ready and s.rests_until_s <= now_s]

    def gives_up_s(self, homes: Sequence[str]) -> float:
        """When waiting for one of these makes no sense any more, on `time.monotonic`."""
        now_s = time.monotonic()
        found = [self._shards[name] for name in homes if name in self._shards]
        since = [s.lost_s or s.incomplete_s or now_s for s in found]  # or it only rests
        return max(since, default=now_s) + self._config.replacement_timeout_s

    @property
    def change(self) -> asyncio.Future[None]:
        """Done at the next change of who can be asked. Of all who ask: not to be cancelled."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        return self._changed

    def place(self, homes: Homes) -> Placement:
        """Another placement holds from now on, for those who wait, too."""
        placement = self.table.switch(homes)
        self._announce()
        return placement

    # --- what calls find out -----------------------------------------------------------------

    def doubt(self, shard: Shard, error: OrreryError) -> None:
        """A call found that it does not answer, or that its connection fails: a probe will tell."""
        if not isinstance(error, DeadlineExceeded):
            shard.in_doubt = True
        shard.probe_now.set()
        self.rest(shard)

    def incomplete(self, shard: Shard, keys: frozenset[ExpertKey]) -> None:
        """A call found that it does not hold what it should."""
        shard.ready = shard.ready - keys
        shard.incomplete_s = shard.incomplete_s or time.monotonic()
        shard.probe_now.set()
        self._announce()

    def rest(self, shard: Shard) -> None:
        """It is not asked for a moment: a call found that it has too much to do."""
        shard.rests_until_s = time.monotonic() + _REST_S
        asyncio.get_running_loop().call_later(_REST_S, self._announce)

    # --- looking after them ------------------------------------------------------------------

    async def take_up(self, shard: Shard, keys: frozenset[ExpertKey]) -> None:
        """Has a shard load experts, in the place of what it holds too much, as a rebalance that was
        cut leaves it. Raises `OrreryError`.
        """
        async with shard.asking:
            self._found(shard, await shard.client.report(self._config.load_timeout_s))
            await self._drop_extra(shard, but=keys)
            await self._load(shard, keys)

    async def give_up(self, shard: Shard, keys: frozenset[ExpertKey]) -> None:
        """Has a shard drop experts. Raises `OrreryError`."""
        async with shard.asking:
            await self._drop(shard, keys)

    async def probe(self, shard: Shard) -> None:
        """Asks a shard how it is, and sets it right. Raises one of `GONE`."""
        async with shard.asking:
            self._found(shard, await shard.client.report(self._config.probe_timeout_s))
            wanted = self.table.current.held_by(shard.name)
            missing = wanted - shard.ready
            shard.incomplete_s = shard.incomplete_s or time.monotonic() if missing else None
            try:
                if missing:
                    await self._load(shard, missing)
                    shard.incomplete_s = None
                # Who moves experts loads them under `asking`, too: after this, if it begins now.
                if not self.moving.locked():
                    await self._drop_extra(shard)
            except GONE:
                raise
            except OrreryError as error:  # what it holds, it can still compute
                details = {"shard": shard.name, "detail": error.message}
                _LOG.error("shard_cannot_be_set_right", extra=details)

    def _found(self, shard: Shard, report: ShardReport) -> None:
        if report.weight_hash != self._weight_hash:
            raise NotReady(f"the shard {shard.name!r} serves other weights: {report.weight_hash}")
        shard.report = report
        shard.heard()
        if shard.lost_s is not None:
            details = {"shard": shard.name, "num_experts": len(report.keys)}
            _LOG.info("shard_found", extra=details)
        if shard.lost_s is not None or shard.ready != report.keys:
            shard.lost_s, shard.ready = None, report.keys
            self._announce()

    async def _load(self, shard: Shard, keys: frozenset[ExpertKey]) -> None:
        await shard.client.load(sorted(keys), self._config.load_timeout_s)
        if shard.lost_s is None:
            shard.ready = shard.ready | keys
            self._announce()

    async def _drop(self, shard: Shard, keys: frozenset[ExpertKey]) -> None:
        shard.ready = shard.ready - keys
        await shard.client.drop(sorted(keys), self._config.load_timeout_s)

    async def _drop_extra(self, shard: Shard, but: frozenset[ExpertKey] = frozenset()) -> None:
        extra = shard.ready - self.table.current.held_by(shard.name) - but
        if extra:
            await self._drop(shard, extra)

    async def _watch(self, shard: Shard) -> None:
        while True:
            shard.probe_now.clear()
            await self._look(shard)
            config = self._config
            well = shard.lost_s is None and not shard.in_doubt and not shard.num_missed
            interval_s = config.probe_interval_s if well else config.probe_lost_interval_s
            try:
                async with asyncio.timeout(interval_s):
                    await shard.probe_now.wait()
            except TimeoutError:
                pass

    async def _look(self, shard: Shard) -> None:
        """One probe, and what follows from it."""
        asked_s = time.monotonic()
        try:
            await self.probe(shard)
        except DeadlineExceeded as error:
            if shard.heard_s < asked_s:
                shard.num_missed += 1
            if shard.num_missed >= _MOST_MISSED:
                self._lose(shard, error)
        except DependencyDown as error:
            if shard.in_doubt:
                self._lose(shard, error)
            shard.in_doubt = True
        except OrreryError as error:
            self._lose(shard, error)

    def _lose(self, shard: Shard, error: OrreryError) -> None:
        if shard.lost_s is None:
            _LOG.warning("shard_lost", extra={"shard": shard.name, "detail": error.message})
            shard.lost_s, shard.ready = time.monotonic(), frozenset()
            self._announce()

    def _announce(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)
