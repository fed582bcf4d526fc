"""Continuous batching: which sequences compute how many tokens in the next step.

There is no prefill phase and no decode phase. Every sequence has `num_computed_tokens` chasing
`num_tokens`, and a step hands out a budget of tokens: first to the running sequences, then to the
waiting ones. A long prompt gets what is left of the budget (chunked prefill), a cached prefix
starts further on, and a preempted sequence starts again from zero.

Order is by (priority, arrival) everywhere. When blocks run out, the last running sequence in that
order is preempted: its blocks are freed and it waits to be recomputed. The first one is never
preempted for another, so that some request always progresses.

         add              admit                        finish
    ──────────> WAITING ─────────> RUNNING ─────────────────────> FINISHED
                   ^                  │ out of blocks
                   └──── preempt ─────┤
                   └─ resume ─ HELD <─┘ (a beam that has nothing to compute yet)

Knows nothing of tensors, sampling or text.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from dataclasses import dataclass, field

from services.engine.block_pool import BlockPool
from services.engine.block_tables import BlockTables
from services.engine.config import EngineConfig
from services.engine.errors import ConfigError, ContextTooLongError, QueueFullError
from services.engine.request import Sequence, SequenceStatus

__all__ = ["ScheduledSequence", "Scheduler", "SchedulerOutput"]


@dataclass(slots=True)
class ScheduledSequence:
    """A sequence's share of a step: `num_tokens` tokens from `num_computed_tokens` on."""

    seq: Sequence
    num_tokens: int

    @property
    def samples(self) -> bool:
        """Whether the step reaches the sequence's last token. Valid until `advance`."""
        return self.seq.num_computed_tokens + self.num_tokens == self.seq.num_tokens


@dataclass(slots=True)
class SchedulerOutput:
    """One step's work: the boundary between scheduling and running."""

    scheduled: list[ScheduledSequence] = field(default_factory=list)  # flattened in this order
    block_copies: list[tuple[int, int]] = field(default_factory=list)  # (from, to) before the run
    admitted: list[Sequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)
    expired: list[Sequence] = field(default_factory=list)
    num_batched_tokens: int = 0


class Scheduler:
    """Owns the block pool and decides, step by step, what runs.

    Raises `ConfigError` when the budget of a step is less than one token per running sequence.
    """

    def __init__(self, config: EngineConfig, num_blocks: int) -> None:
        if config.max_num_batched_tokens < config.max_num_seqs:
            raise ConfigError(
                "max_num_batched_tokens",
                f"expected at least max_num_seqs ({config.max_num_seqs}), "
                f"got {config.max_num_batched_tokens}",
            )
        self.config = config
        self.pool = BlockPool(num_blocks, config.block_size)
        self.tables = BlockTables(self.pool, enable_prefix_caching=config.enable_prefix_caching)
        self.num_preemptions = 0
        # Both in order; sequences are few, so that a sorted list beats a heap with holes.
        self._running: list[Sequence] = []
        self._waiting: list[Sequence] = []
        self._held: list[Sequence] = []
        self._num_new = 0  # waiting sequences that were never admitted
        self._slots_used = 0
        self._next_expiry = math.inf  # a lower bound over all sequences
        self._turnover = _Turnover()

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences in the queue: new ones, and preempted ones that will be recomputed."""
        return len(self._waiting)

    @property
    def num_places(self) -> int:
        """New requests that `add` lets in now. What can start at once does not count as queued."""
        free_slots = max(0, self.config.max_num_seqs - self._slots_used)
        return self.config.max_num_waiting + free_slots - self._num_new

    @property
    def retry_after_s(self) -> float:
        """Seconds until half of those that wait now will have started, about."""
        return self._turnover.time_to_drain(self._num_new / 2)

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting)

    @property
    def sequences(self) -> list[Sequence]:
        """Everything that has not finished."""
        return [*self._running, *self._waiting, *self._held]

    # Entering and leaving ------------------------------------------------------------------

    def add(self, seq: Sequence) -> None:
        """Queues the first sequence of a new request.

        Raises `ContextTooLongError` when all blocks together could not hold it, `QueueFullError`
        when there is no place; then nothing is held. With `max_num_waiting` 0, a request is
        accepted while a slot is free.
        """
        most_blocks = self.tables.num_blocks_for(max(seq.num_prompt_tokens, seq.max_num_tokens - 1))
        if most_blocks > self.pool.num_blocks:
            raise ContextTooLongError(
                "max_tokens",
                f"prompt and completion of up to {seq.max_num_tokens} tokens need {most_blocks} "
                f"KV blocks of {self.config.block_size} tokens, the cache has "
                f"{self.pool.num_blocks}",
            )
        if self.num_places <= 0:
            raise QueueFullError.beyond(self.config.max_num_waiting, self.retry_after_s)
        self._num_new += 1
        self._enqueue(seq)

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Adds `child`, which has the parent's computed tokens: it shares the parent's blocks.

        Where the parent has lost its blocks, or no slot is free (a sibling's was given away while
        it was held), the child queues and is computed from its tokens.
        """
        child.admitted = True
        if parent.num_slots > 1:
            parent.num_slots -= 1
            self._slots_used -= 1
        full = self._slots_used >= self.config.max_num_seqs
        if parent.status is not SequenceStatus.RUNNING or full:
            self._enqueue(child)
            return
        self.tables.fork(parent, child)
        self._run(child)

    def resume(self, seq: Sequence) -> None:
        """Says that a sequence has new tokens to compute; one that was held queues again."""
        if seq.status is SequenceStatus.HELD:
            self._held.remove(seq)
            self._enqueue(seq)

    def finish(self, seq: Sequence) -> None:
        """Takes a sequence out, wherever it stands, and gives back its blocks at once."""
        if seq.status is SequenceStatus.RUNNING:
            self._stop(seq)
        elif seq.status is SequenceStatus.WAITING:
            _remove(self._waiting, seq)
            self._num_new -= not seq.admitted
        elif seq.status is SequenceStatus.HELD:
            self._held.remove(seq)
        seq.status = SequenceStatus.FINISHED

    # One step ------------------------------------------------------------------------------

    def schedule(self, now: float) -> SchedulerOutput:
        """Plans the next step. `now` is on the `time.monotonic` clock.

        Whoever runs the plan calls `advance` afterwards. Sequences past their deadline are taken
        out first and listed in `expired`.
        """
        out = SchedulerOutput()
        self.tables.start_step()
        if now >= self._next_expiry:
            self._expire(now, out)
        self._schedule_running(out)
        if not out.preempted:
            self._admit(now, out)
        # All that run may be beams waiting for siblings that cannot be admitted beside them.
        while not out.scheduled and self._waiting:
            if self._running:
                self._preempt(self._running[-1], out)
            self._admit(now, out)
        return out

    def advance(self, out: SchedulerOutput) -> None:
        """Records that a step has run: its K/V are in the cache, filled blocks become reusable."""
        for scheduled in out.scheduled:
            self.tables.advance(scheduled.seq, scheduled.num_tokens)

    def preempt(self, seq: Sequence) -> None:
        """Makes a running sequence start again from its tokens, its K/V forgotten."""
        self._preempt(seq, SchedulerOutput())

    def check_integrity(self) -> None:
        """Raises AssertionError when an invariant of pool, queues or sequences does not hold."""
        self.tables.check_integrity(self._running)
        assert all(seq.status is SequenceStatus.RUNNING for seq in self._running)
        for queue, status in (
            (self._waiting, SequenceStatus.WAITING),
            (self._held, SequenceStatus.HELD),
        ):
            for seq in queue:
                assert seq.status is status
                assert not seq.block_ids
                assert seq.num_computed_tokens == 0
        for ordered in (self._running, self._waiting):
            assert ordered == sorted(ordered, key=_order), "a queue is out of order"
        assert self._num_new == sum(not seq.admitted for seq in self._waiting)
        assert self._slots_used == sum(seq.num_slots for seq in self._running)
        assert self._slots_used <= self.config.max_num_seqs

    # Running sequences ---------------------------------------------------------------------

    def _schedule_running(self, out: SchedulerOutput) -> None:
        index = 0
        while index < len(self._running):
            seq = self._running[index]
            index += 1
            num_tokens = min(
                seq.num_tokens - seq.num_computed_tokens,
                self.config.max_num_batched_tokens - out.num_batched_tokens,
            )
            if num_tokens == 0:  # held by its siblings, or no budget left
                continue
            if not self._secure_blocks(seq, num_tokens, out):
                return
            self._schedule(seq, num_tokens, out)

    def _schedule(self, seq: Sequence, num_tokens: int, out: SchedulerOutput) -> None:
        out.scheduled.append(ScheduledSequence(seq, num_tokens))
        out.num_batched_tokens += num_tokens
        self.tables.expect(seq, num_tokens)

    def _secure_blocks(self, seq: Sequence, num_tokens: int, out: SchedulerOutput) -> bool:
        """Sees that `seq` may write its next tokens, preempting from the end of the order.

        False: it was itself the last one, and is preempted.
        """
        while not self.tables.secure(seq, num_tokens, out.block_copies):
            victim = self._running[-1]
            self._preempt(victim, out)
            if victim is seq:
                return False
        return True

    def _preempt(self, seq: Sequence, out: SchedulerOutput) -> None:
        held = seq.num_computed_tokens == seq.num_tokens
        self._stop(seq)
        seq.num_computed_tokens = 0
        seq.num_preemptions += 1
        self.num_preemptions += 1
        out.preempted.append(seq)
        if held:
            seq.status = SequenceStatus.HELD
            self._held.append(seq)
        else:
            self._enqueue(seq)

    # Waiting sequences ---------------------------------------------------------------------

    def _admit(self, now: float, out: SchedulerOutput) -> None:
        """Starts waiting sequences, strictly in order, while slots, blocks and budget last."""
        while self._waiting:
            seq = self._waiting[0]
            budget = self.config.max_num_batched_tokens - out.num_batched_tokens
            if budget == 0 or self._slots_used + seq.num_slots > self.config.max_num_seqs:
                return
            # While others run, the last blocks are theirs: they will need them soon.
            if not self.tables.place(seq, keep_free=len(self._running)):
                return
            del self._waiting[0]
            if not seq.admitted:
                seq.admitted = True
                seq.num_cached_tokens = seq.num_computed_tokens
                self._num_new -= 1
                self._turnover.record_admission(now)
            self._run(seq)
            out.admitted.append(seq)
            self._schedule(seq, min(seq.num_tokens - seq.num_computed_tokens, budget), out)

    def _expire(self, now: float, out: SchedulerOutput) -> None:
        for seq in self.sequences:
            if self._expiry(seq) <= now:
                self.finish(seq)
                out.expired.append(seq)
        self._next_expiry = min(map(self._expiry, self.sequences), default=math.inf)

    def _expiry(self, seq: Sequence) -> float:
        request = seq.request
        deadline = math.inf if request.deadline_s is None else request.deadline_s
        if seq.admitted or self.config.max_queue_s is None:
            return deadline
        return min(deadline, request.arrival_s + self.config.max_queue_s)

    # Shared --------------------------------------------------------------------------------

    def _enqueue(self, seq: Sequence) -> None:
        seq.status = SequenceStatus.WAITING
        insort(self._waiting, seq, key=_order)
        self._next_expiry = min(self._next_expiry, self._expiry(seq))

    def _run(self, seq: Sequence) -> None:
        seq.status = SequenceStatus.RUNNING
        insort(self._running, seq, key=_order)
        self._slots_used += seq.num_slots

    def _stop(self, seq: Sequence) -> None:
        """Takes a sequence from the running ones; its blocks go back."""
        _remove(self._running, seq)
        self._slots_used -= seq.num_slots
        self.tables.release(seq)


class _Turnover:
    """How fast waiting requests are admitted: an exponential average of the time between two."""

    def __init__(self) -> None:
        self._interval_s = 0.0
        self._last_s: float | None = None

    def record_admission(self, now: float) -> None:
        if self._last_s is not None:
            self._interval_s += 0.1 * (now - self._last_s - self._interval_s)
        self._last_s = now

    def time_to_drain(self, count: float) -> float:
        """Seconds until about `count` requests have been admitted, between 1 and 60."""
        return min(60.0, max(1.0, count * self._interval_s))


def _order(seq: Sequence) -> tuple[int, float, int]:
    return seq.order


def _remove(ordered: list[Sequence], seq: Sequence) -> None:
    index = bisect_left(ordered, seq.order, key=_order)
    assert ordered[index] is seq, f"sequence {seq.seq_id} is not where it should be"
    del ordered[index]
