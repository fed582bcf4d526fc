"""A batch's rows to the shards that hold their experts, and back: all of them, or one error.

    rows sorted by expert    [ expert 2 ][ expert 5 ][ expert 7      ]
    pieces                   [    a     ][    b     ][   c  ][   d   ]    7 lives on two shards
    attempts                 shard 0: a, c      shard 1: b, d             all at once

A piece is a run of rows of one expert; an attempt is one call to one shard. A piece is done when
the first attempt with it is answered. Where an attempt fails its pieces go to another replica, or
wait for the shard that is to replace the lost one; where it takes far longer than is usual, those
of its pieces that have another replica are asked for there, too: hedged, as long as few are. Knows
nothing of gates or gRPC.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from services.moe.expert_key import ExpertKey
from services.moe.router.config import FailureConfig
from services.moe.router.fleet import Fleet, Shard
from services.moe.router.load import LoadWindow
from services.moe.router.metrics import RouterMetrics
from services.moe.router.placement import Follower
from services.moe.shard_work import ShardWork
from services.runtime.errors import (
    DeadlineExceeded,
    DependencyDown,
    Internal,
    NotReady,
    OrreryError,
    Overloaded,
    ResourceNotFound,
    kind_of,
)

__all__ = ["Exchange", "ExpertRows", "Progress"]

_LOG = logging.getLogger("orrery.moe.exchange")
_RETRY_AFTER_S = 1.0
# Where everything is slow at once, asking twice makes it slower: so many of all attempts under way
# may be hedges, or one.
_HEDGED_SHARE = 0.1
_LOOK_AGAIN_S = 0.005  # whether another hedge may be made


@dataclass(frozen=True, slots=True, eq=False)
class ExpertRows:
    """What a batch asks of the experts of a layer.

    Rows are sorted by expert: those of `expert_ids[i]` are `starts[i]` to `stops[i]`, of `num_rows`
    in all; row r is a copy of `hidden[token_ids[r]]`. Rows outside of that are nobody's, and zero
    in the result.
    """

    layer: int
    hidden: Tensor  # [T, hidden_size]
    token_ids: Tensor  # int64 [num_rows]
    expert_ids: Sequence[int]
    starts: Sequence[int]
    stops: Sequence[int]

    @property
    def num_rows(self) -> int:
        return len(self.token_ids)


@dataclass(slots=True)
class Progress:
    """Where a batch is, for whoever waits for it."""

    placement_version: int = 0
    waits_for: ExpertKey | None = None  # an expert that nobody can compute now


@dataclass(eq=False, slots=True)
class _Piece:
    key: ExpertKey
    start: int
    stop: int
    asked: set[str] = field(default_factory=set)  # shards, by attempts under way
    failed: dict[str, OrreryError] = field(default_factory=dict)  # shards not to ask again
    done: bool = False


@dataclass(eq=False, slots=True)
class _Attempt:
    shard: Shard
    pieces: list[_Piece]
    num_rows: int
    started_s: float
    hedge_s: float  # when to ask others, too
    is_hedge: bool


class Exchange:
    """The way to the experts of one model. Used from one event loop."""

    def __init__(
        self,
        fleet: Fleet,
        config: FailureConfig,
        load: LoadWindow,
        metrics: RouterMetrics,
        max_rows: int,
    ) -> None:
        self.fleet = fleet
        self.config = config
        self.load = load
        self.metrics = metrics
        self.max_rows = max_rows  # of one call
        self.num_attempts = 0  # under way
        self.num_hedges = 0  # of these
        self._turn = 0

    async def compute(self, work: ExpertRows, progress: Progress) -> Tensor:
        """[num_rows, hidden_size], each row through its expert.

        Cancelling it cancels its calls. Raises `DependencyDown` where an expert's homes stay away
        for too long; what else a shard says, where no other can be asked.
        """
        with self.fleet.table.follow() as follower:
            batch = _Batch(self, work, progress, follower)
            try:
                return await batch.run()
            finally:
                batch.close()

    def may_hedge(self) -> bool:
        """Whether one more attempt may be made for what is under way already."""
        return self.num_hedges < max(1.0, _HEDGED_SHARE * self.num_attempts)

    def next_turn(self) -> int:
        """Where an expert's replicas begin to be dealt rows: with another one each time."""
        self._turn += 1
        return self._turn


class _Batch:
    """One batch under way."""

    def __init__(
        self, exchange: Exchange, work: ExpertRows, progress: Progress, follower: Follower
    ) -> None:
        self._exchange = exchange
        self._fleet = exchange.fleet
        self._work = work
        self._progress = progress
        self._follower = follower
        self._max_rows = exchange.max_rows
        self._turn = exchange.next_turn()
        self._attempts: dict[asyncio.Future[Tensor], _Attempt] = {}
        self._ended: list[asyncio.Future[Tensor]] = []
        self._news = asyncio.Event()  # an attempt has ended, or whatever else is waited for
        self._waiting: list[_Piece] = []  # for a shard that can be asked
        self._num_left = 0  # pieces that are not done
        self._out = work.hidden.new_zeros(work.num_rows, work.hidden.shape[1])

    async def run(self) -> Tensor:
        self._begin()
        while self._num_left:
            change = self._fleet.change
            self._assign_waiting()
            self._progress.waits_for = self._waiting[0].key if self._waiting else None
            await self._wait(change)
            ended, self._ended = self._ended, []
            for call in ended:
                self._finish(call)
            if change.done():  # also where what just failed has changed it
                self._leave_lost()
            self._hedge()
        return self._out

    def close(self) -> None:
        """Gives up what is under way."""
        for call in self._attempts:
            call.cancel()

    async def _wait(self, change: asyncio.Future[None]) -> None:
        """Until an attempt has ended, who can be asked has changed, or patience is over."""
        patience_s = self._patience_s()
        timer = None
        if patience_s is not None:
            timer = asyncio.get_running_loop().call_later(patience_s, self._news.set)
        change.add_done_callback(self._wake)
        try:
            await self._news.wait()
        finally:
            change.remove_done_callback(self._wake)
            if timer is not None:
                timer.cancel()
        self._news.clear()

    def _wake(self, _: asyncio.Future[None]) -> None:
        self._news.set()

    # --- pieces to shards --------------------------------------------------------------------

    def _begin(self) -> None:
        """Rows of an expert with replicas go to them in equal parts, the odd ones in turn."""
        work, placement = self._work, self._follower.placement
        self._progress.placement_version = placement.version
        chosen: defaultdict[Shard, list[_Piece]] = defaultdict(list)
        for expert, start, stop in zip(work.expert_ids, work.starts, work.stops, strict=True):
            key = ExpertKey(work.layer, expert)
            holders = self._fleet.holders(key, placement.homes[key])
            for number, piece in enumerate(self._parts(key, start, stop, len(holders))):
                self._num_left += 1
                if holders:
                    chosen[holders[(self._turn + number) % len(holders)]].append(piece)
                else:
                    self._waiting.append(piece)
        self._ask_all(chosen)

    def _parts(self, key: ExpertKey, start: int, stop: int, num_holders: int) -> Iterator[_Piece]:
        num_rows = stop - start
        num_parts = max(1, min(num_holders, num_rows), -(-num_rows // self._max_rows))
        size, more = divmod(num_rows, num_parts)
        for number in range(num_parts):
            end = start + size + (number < more)
            yield _Piece(key, start, end)
            start = end

    def _assign_waiting(self) -> None:
        """Pieces that wait go to shards that can be asked by now. Raises where none ever can."""
        if not self._waiting:
            return
        placement = self._follower.renew()
        self._progress.placement_version = placement.version
        waiting, self._waiting = self._waiting, []
        chosen: defaultdict[Shard, list[_Piece]] = defaultdict(list)
        for piece in waiting:
            holders = self._others(piece)
            if holders:
                chosen[holders[self._turn % len(holders)]].append(piece)
            else:
                self._check_hope(piece)
                self._waiting.append(piece)
        self._ask_all(chosen)

    def _others(self, piece: _Piece) -> list[Shard]:
        """Who can be asked for a piece and is not being asked already."""
        homes = self._follower.placement.homes[piece.key]
        holders = self._fleet.holders(piece.key, homes)
        return [s for s in holders if s.name not in piece.asked and s.name not in piece.failed]

    def _check_hope(self, piece: _Piece) -> None:
        if time.monotonic() < self._gives_up_s(piece):
            return
        for error in piece.failed.values():
            raise error
        raise DependencyDown(
            f"no shard that holds {piece.key} answers", retry_after_s=_RETRY_AFTER_S
        )

    def _gives_up_s(self, piece: _Piece) -> float:
        homes = self._follower.placement.homes[piece.key]
        left = [name for name in homes if name not in piece.failed]
        return self._fleet.gives_up_s(left) if left else 0.0

    def _patience_s(self) -> float | None:
        """Until there is something to do even where nothing happens; None: never."""
        moments = [attempt.hedge_s for attempt in self._attempts.values()]
        moments += [self._gives_up_s(piece) for piece in self._waiting]
        first_s = min(moments, default=math.inf)
        return None if math.isinf(first_s) else max(0.0, first_s - time.monotonic())

    # --- calls -------------------------------------------------------------------------------

    def _ask_all(self, chosen: Mapping[Shard, list[_Piece]], *, is_hedge: bool = False) -> None:
        for shard, pieces in chosen.items():
            call: list[_Piece] = []
            num_rows = 0
            for piece in sorted(pieces, key=lambda piece: piece.start):
                size = piece.stop - piece.start
                if call and num_rows + size > self._max_rows:
                    self._ask(shard, call, num_rows, is_hedge)
                    call, num_rows = [], 0
                call.append(piece)
                num_rows += size
            self._ask(shard, call, num_rows, is_hedge)

    def _ask(self, shard: Shard, pieces: list[_Piece], num_rows: int, is_hedge: bool) -> None:
        exchange, config = self._exchange, self._exchange.config
        now_s = time.monotonic()
        usual_s = shard.usual_s(num_rows)
        hedge_s = math.inf
        if usual_s is not None:
            hedge_s = now_s + max(config.hedge_floor_s, config.hedge_factor * usual_s)
        work = self._work_of(pieces)
        for piece in pieces:
            piece.asked.add(shard.name)
        call = asyncio.ensure_future(shard.client.compute(work, config.attempt_timeout_s))
        exchange.num_attempts += 1
        exchange.num_hedges += is_hedge
        self._attempts[call] = _Attempt(shard, pieces, num_rows, now_s, hedge_s, is_hedge)
        call.add_done_callback(partial(self._end, is_hedge))

    def _work_of(self, pieces: list[_Piece]) -> ShardWork:
        counts: dict[int, int] = {}
        for piece in pieces:
            expert = piece.key.expert
            counts[expert] = counts.get(expert, 0) + piece.stop - piece.start
        work = self._work
        parts = [work.token_ids[piece.start : piece.stop] for piece in pieces]
        index = parts[0] if len(parts) == 1 else torch.cat(parts)
        rows = work.hidden.index_select(0, index)
        return ShardWork(work.layer, list(counts), list(counts.values()), rows)

    def _end(self, is_hedge: bool, call: asyncio.Future[Tensor]) -> None:
        self._exchange.num_attempts -= 1
        self._exchange.num_hedges -= is_hedge
        if not call.cancelled():
            call.exception()  # seen, also where nobody waits any more
        self._ended.append(call)
        self._news.set()

    def _finish(self, call: asyncio.Future[Tensor]) -> None:
        attempt = self._attempts.get(call)
        if attempt is None:  # it has been left
            return
        error = None if call.cancelled() else call.exception()
        if error is not None:
            if not isinstance(error, OrreryError):
                raise error
            self._blame(attempt, error)
        elif not call.cancelled():
            self._take(attempt, call.result())
        self._finish_without(call)

    def _finish_without(self, call: asyncio.Future[Tensor]) -> None:
        """Takes an attempt out; what is neither done nor asked for elsewhere waits again."""
        attempt = self._attempts.pop(call)
        for piece in attempt.pieces:
            piece.asked.discard(attempt.shard.name)
        self._waiting += [p for p in attempt.pieces if not p.done and not p.asked]

    def _take(self, attempt: _Attempt, rows: Tensor) -> None:
        seconds = time.monotonic() - attempt.started_s
        attempt.shard.took(attempt.num_rows, seconds)
        self._exchange.load.computed(attempt.shard.name, attempt.num_rows)
        self._exchange.metrics.computed(attempt.shard.name, attempt.num_rows)
        start = 0
        for piece in attempt.pieces:
            stop = start + piece.stop - piece.start
            if not piece.done:
                self._out[piece.start : piece.stop] = rows[start:stop]
                piece.done = True
                self._num_left -= 1
            start = stop
        for call, other in self._attempts.items():
            if other is not attempt and all(piece.done for piece in other.pieces):
                call.cancel()

    def _blame(self, attempt: _Attempt, error: OrreryError) -> None:
        shard = attempt.shard
        self._exchange.metrics.failed(shard.name, kind_of(error).reason)
        match error:
            case DependencyDown() | NotReady() | DeadlineExceeded():  # as `fleet.GONE`
                self._fleet.doubt(shard, error)
            case ResourceNotFound():
                self._fleet.incomplete(shard, frozenset(piece.key for piece in attempt.pieces))
            case Overloaded():
                self._fleet.rest(shard)
            case _:
                failed = _not_the_callers(shard, error)
                for piece in attempt.pieces:
                    piece.failed[shard.name] = failed

    def _leave_lost(self) -> None:
        """Does not wait for shards that are found lost."""
        for call, attempt in list(self._attempts.items()):
            if attempt.shard.lost_s is not None:
                call.cancel()
                self._finish_without(call)

    def _hedge(self) -> None:
        """Asks others, too, for what takes far longer than is usual."""
        now_s = time.monotonic()
        for attempt in list(self._attempts.values()):
            if attempt.hedge_s > now_s:
                continue
            if self._exchange.may_hedge():
                attempt.hedge_s = math.inf
                self._repeat(attempt)
            else:
                attempt.hedge_s = now_s + max(_LOOK_AGAIN_S, self._exchange.config.hedge_floor_s)

    def _repeat(self, attempt: _Attempt) -> None:
        chosen: defaultdict[Shard, list[_Piece]] = defaultdict(list)
        for piece in attempt.pieces:
            others = [] if piece.done else self._others(piece)
            if others:
                chosen[others[self._turn % len(others)]].append(piece)
        for _ in chosen:
            self._exchange.metrics.hedged()
        self._ask_all(chosen, is_hedge=True)


def _not_the_callers(shard: Shard, error: OrreryError) -> Internal:
    """What a shard refuses is the router's mistake, or its own: whoever called sent neither."""
    if isinstance(error, Internal):
        return error
    _LOG.error("shard_refused", extra={"shard": shard.name, "detail": error.message})
    return Internal(f"the shard {shard.name!r} refused the router's work")
