"""The scheduler: order, budget, chunks, preemption, limits and deadlines; and random schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.engine.config import EngineConfig
from services.engine.errors import ConfigError, ContextTooLongError, QueueFullError
from services.engine.request import Request, SamplingParams, Sequence, SequenceStatus
from services.engine.scheduler import Scheduler, SchedulerOutput
from tests.unit.engine.toy import PagedTokens, continuation, next_token

NUM_BLOCKS = 16


def config(**settings: object) -> EngineConfig:
    values = {"block_size": 4, "max_num_seqs": 4, "max_num_batched_tokens": 16}
    return EngineConfig.model_validate({**values, **settings})


@dataclass
class Simulation:
    """A scheduler with a toy model behind it."""

    config: EngineConfig = field(default_factory=config)
    num_blocks: int = NUM_BLOCKS

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.config, self.num_blocks)
        self.cache = PagedTokens(self.num_blocks, self.config.block_size)
        self.sequences: list[Sequence] = []
        self.now = 0.0

    def add(self, prompt: list[int], max_tokens: int = 4, n: int = 1, **fields: object) -> Sequence:
        params = fields.pop("params", None) or SamplingParams(max_tokens=max_tokens, n=n)
        request = Request(
            request_id=str(len(self.sequences)),
            prompt_token_ids=prompt,
            params=params,  # type: ignore[arg-type]
            arrival_s=self.now,
            **fields,  # type: ignore[arg-type]
        )
        seq = Sequence(
            seq_id=len(self.sequences),
            request=request,
            token_ids=list(prompt),
            max_num_tokens=len(prompt) + max_tokens,
            num_slots=n,
        )
        self.scheduler.add(seq)
        self.sequences.append(seq)
        return seq

    def step(self) -> SchedulerOutput:
        self.now += 1.0
        out = self.scheduler.schedule(self.now)
        assert out.num_batched_tokens == sum(s.num_tokens for s in out.scheduled)
        assert out.num_batched_tokens <= self.config.max_num_batched_tokens
        assert self.scheduler.num_running <= self.config.max_num_seqs
        assert out.scheduled or not self.scheduler.has_work, "a step did nothing"
        self.cache.run(out)
        samplers = [scheduled.seq for scheduled in out.scheduled if scheduled.samples]
        self.scheduler.advance(out)
        for seq in samplers:
            self.sample(seq)
        self.scheduler.check_integrity()
        return out

    def sample(self, seq: Sequence) -> None:
        first = seq.num_output_tokens == 0
        context = list(seq.token_ids)
        if first:
            for index in range(1, seq.request.params.n):
                child = Sequence(
                    seq_id=len(self.sequences),
                    request=seq.request,
                    token_ids=[*context, next_token(context, index)],
                    index=index,
                    max_num_tokens=seq.max_num_tokens,
                )
                self.sequences.append(child)
                self.scheduler.fork(seq, child)
                if child.num_tokens >= child.max_num_tokens:
                    self.scheduler.finish(child)
        seq.token_ids.append(next_token(context, seq.index))
        if seq.num_tokens >= seq.max_num_tokens:
            self.scheduler.finish(seq)

    def run(self, max_steps: int = 2000) -> int:
        for count in range(max_steps):
            if not self.scheduler.has_work:
                assert self.scheduler.pool.num_free == self.num_blocks
                return count
            self.step()
        raise AssertionError("the schedule does not end")

    def check_tokens(self) -> None:
        for seq in self.sequences:
            prompt = seq.request.prompt_token_ids
            assert seq.token_ids == prompt + continuation(prompt, seq.num_output_tokens, seq.index)


def scheduled_ids(out: SchedulerOutput) -> list[tuple[int, int]]:
    return [(scheduled.seq.seq_id, scheduled.num_tokens) for scheduled in out.scheduled]


def test_prompt_longer_than_the_budget_is_chunked() -> None:
    simulation = Simulation(config(max_num_batched_tokens=8))
    seq = simulation.add(list(range(20)), max_tokens=2)
    assert scheduled_ids(simulation.step()) == [(0, 8)]
    assert scheduled_ids(simulation.step()) == [(0, 8)]
    assert seq.num_output_tokens == 0
    assert scheduled_ids(simulation.step()) == [(0, 4)]
    assert seq.num_output_tokens == 1
    assert scheduled_ids(simulation.step()) == [(0, 1)]
    assert seq.status is SequenceStatus.FINISHED


def test_running_sequences_come_before_waiting_ones_and_share_the_budget() -> None:
    simulation = Simulation(config(max_num_batched_tokens=8))
    simulation.add([1, 2, 3], max_tokens=5)
    simulation.step()
    simulation.add(list(range(10)))
    assert scheduled_ids(simulation.step()) == [(0, 1), (1, 7)]
    assert scheduled_ids(simulation.step()) == [(0, 1), (1, 3)]


def test_waiting_sequences_start_by_priority_then_arrival() -> None:
    simulation = Simulation(config(max_num_seqs=1))
    for priority in (5, 0, 5, -1):
        simulation.now += 1
        simulation.add([priority + 10], max_tokens=1, priority=priority)
    started = []
    while simulation.scheduler.has_work:
        started += [seq.seq_id for seq in simulation.step().admitted]
    assert started == [3, 1, 0, 2]


def test_later_request_does_not_overtake_one_that_waits_for_blocks() -> None:
    simulation = Simulation(config(max_num_batched_tokens=64))
    simulation.add(list(range(40)), max_tokens=8)  # 10 of 16 blocks
    simulation.step()
    simulation.add(list(range(50, 85)))  # does not fit beside it
    simulation.add([1])
    out = simulation.step()
    assert scheduled_ids(out) == [(0, 1)]
    assert simulation.scheduler.num_waiting == 2
    simulation.run()
    simulation.check_tokens()


def test_block_shortage_preempts_the_last_and_loses_nothing() -> None:
    simulation = Simulation(config(max_num_batched_tokens=64), num_blocks=6)
    simulation.add([1, 2, 3, 4, 5, 6, 7], max_tokens=12)
    simulation.add([11, 12, 13, 14, 15, 16, 17], max_tokens=12)
    simulation.run()
    simulation.check_tokens()
    assert simulation.sequences[0].num_preemptions == 0
    assert simulation.sequences[1].num_preemptions > 0
    assert simulation.scheduler.num_preemptions == simulation.sequences[1].num_preemptions


def test_block_shortage_spares_the_higher_priority_though_later() -> None:
    simulation = Simulation(config(max_num_batched_tokens=64), num_blocks=6)
    simulation.add([1, 2, 3, 4, 5, 6, 7], max_tokens=12, priority=1)
    simulation.add([11, 12, 13, 14, 15, 16, 17], max_tokens=12, priority=0)
    simulation.run()
    simulation.check_tokens()
    assert simulation.sequences[1].num_preemptions == 0
    assert simulation.sequences[0].num_preemptions > 0


def test_request_that_can_never_fit_is_refused() -> None:
    simulation = Simulation()
    with pytest.raises(ContextTooLongError, match="16"):
        simulation.add(list(range(10)), max_tokens=60)
    assert not simulation.scheduler.has_work
    simulation.add(list(range(10)), max_tokens=55)  # the last token needs no K/V
    simulation.run()


def test_queue_bound_counts_only_requests_that_cannot_start() -> None:
    simulation = Simulation(config(max_num_seqs=2, max_num_waiting=1))
    for _ in range(3):
        simulation.add([1, 2])
    with pytest.raises(QueueFullError) as caught:
        simulation.add([1, 2])
    assert 1.0 <= caught.value.retry_after_s <= 60.0
    simulation.step()
    with pytest.raises(QueueFullError):
        simulation.add([1, 2])
    simulation.run()
    assert len(simulation.sequences) == 3


def test_queue_bound_ignores_preempted_requests() -> None:
    simulation = Simulation(
        config(max_num_seqs=2, max_num_batched_tokens=64, max_num_waiting=0), num_blocks=6
    )
    simulation.add([1, 2, 3, 4, 5, 6, 7], max_tokens=12)
    simulation.add([11, 12, 13, 14, 15, 16, 17], max_tokens=12)
    while simulation.scheduler.num_preemptions == 0:
        simulation.step()
    simulation.add([9], max_tokens=1)  # the preempted one has left a slot
    simulation.run()
    simulation.check_tokens()


def test_queued_request_expires_before_it_costs_anything() -> None:
    simulation = Simulation(config(max_num_seqs=1))
    simulation.add([1, 2], max_tokens=10)
    late = simulation.add([3, 4], deadline_s=3.0)
    assert simulation.step().expired == []
    assert simulation.step().expired == []
    assert simulation.step().expired == [late]
    assert late.status is SequenceStatus.FINISHED
    assert not late.admitted
    assert late.num_computed_tokens == 0
    simulation.run()


def test_max_queue_s_bounds_the_queue_but_not_the_run() -> None:
    simulation = Simulation(config(max_num_seqs=1, max_queue_s=2.5))
    first = simulation.add([1, 2], max_tokens=10)
    late = simulation.add([3, 4])
    expired = [seq for _ in range(6) for seq in simulation.step().expired]
    assert expired == [late]
    simulation.run()
    assert first.num_output_tokens == 10


def test_running_request_past_its_deadline_expires_and_frees_its_blocks() -> None:
    simulation = Simulation()
    seq = simulation.add(list(range(10)), max_tokens=30, deadline_s=3.0)
    simulation.step()
    simulation.step()
    out = simulation.step()
    assert out.expired == [seq]
    assert out.scheduled == []
    assert simulation.scheduler.pool.num_free == NUM_BLOCKS


def test_shared_prefix_is_computed_once() -> None:
    simulation = Simulation(config(max_num_batched_tokens=64))
    prefix = list(range(16))
    simulation.add([*prefix, 50, 51], max_tokens=2)
    simulation.run()
    second = simulation.add([*prefix, 60], max_tokens=2)
    assert scheduled_ids(simulation.step()) == [(1, 1)]
    assert second.num_cached_tokens == 16
    assert simulation.scheduler.tables.prefix_cache.num_hit == 16
    assert simulation.scheduler.tables.prefix_cache.num_queried == 18 + 17
    simulation.run()
    simulation.check_tokens()


def test_prompts_that_come_together_compute_what_they_share_once() -> None:
    simulation = Simulation(config(max_num_batched_tokens=64))
    prefix = list(range(16))
    for last in (50, 60, 70):
        simulation.add([*prefix, last], max_tokens=2)
    assert scheduled_ids(simulation.step()) == [(0, 17)]
    assert scheduled_ids(simulation.step()) == [(0, 1), (1, 1), (2, 1)]
    assert [seq.num_cached_tokens for seq in simulation.sequences] == [0, 16, 16]
    simulation.run()
    simulation.check_tokens()


def test_prompts_that_share_less_than_a_block_start_together() -> None:
    simulation = Simulation(config(max_num_batched_tokens=64))
    for last in (50, 60):
        simulation.add([0, 1, 2, last, 9, 9], max_tokens=2)
    assert scheduled_ids(simulation.step()) == [(0, 6), (1, 6)]
    simulation.run()


def test_fully_cached_prompt_recomputes_its_last_block() -> None:
    simulation = Simulation(config(max_num_batched_tokens=64))
    prompt = list(range(16))
    simulation.add(prompt, max_tokens=1)
    simulation.run()
    again = simulation.add(prompt, max_tokens=1)
    assert scheduled_ids(simulation.step()) == [(1, 4)]
    assert again.num_cached_tokens == 12
    simulation.check_tokens()


def test_generated_tokens_are_reused_by_a_follow_up() -> None:
    simulation = Simulation(config(max_num_batched_tokens=64))
    first = simulation.add([1, 2, 3], max_tokens=8)
    simulation.run()
    follow_up = simulation.add([*first.token_ids, 7, 8], max_tokens=1)
    simulation.step()
    assert follow_up.num_cached_tokens == 8  # 3 + 7 computed tokens: two full blocks of 4
    simulation.check_tokens()


def test_prompt_logprobs_skip_the_prefix_cache() -> None:
    simulation = Simulation(config(max_num_batched_tokens=64))
    simulation.add(list(range(16)), max_tokens=1)
    simulation.run()
    params = SamplingParams(max_tokens=1, prompt_logprobs=0)
    simulation.add(list(range(16)), max_tokens=1, params=params)
    assert scheduled_ids(simulation.step()) == [(1, 16)]
    assert simulation.scheduler.tables.prefix_cache.num_queried == 16


def test_cache_salt_separates_prefixes() -> None:
    simulation = Simulation(config(max_num_batched_tokens=64))
    simulation.add(list(range(16)), max_tokens=1, cache_salt="a")
    simulation.run()
    other = simulation.add(list(range(16)), max_tokens=1, cache_salt="b")
    simulation.run()
    assert other.num_cached_tokens == 0


def test_disabled_prefix_cache_finds_nothing() -> None:
    simulation = Simulation(config(enable_prefix_caching=False))
    for _ in range(2):
        simulation.add(list(range(16)), max_tokens=2)
        simulation.run()
    assert [seq.num_cached_tokens for seq in simulation.sequences] == [0, 0]
    assert simulation.scheduler.pool.num_cached == 0


def test_forks_share_the_prompt_and_copy_the_partial_block_when_written() -> None:
    simulation = Simulation(config(max_num_batched_tokens=64))
    simulation.add(list(range(10)), max_tokens=6, n=3)
    simulation.step()
    used = NUM_BLOCKS - simulation.scheduler.pool.num_free
    assert used == 3  # two full blocks and a partial one, shared by all
    out = simulation.step()
    assert len(out.block_copies) == 2  # the last holder writes in place
    assert NUM_BLOCKS - simulation.scheduler.pool.num_free == 2 + 3
    simulation.run()
    simulation.check_tokens()
    assert len({tuple(seq.token_ids) for seq in simulation.sequences}) == 3


def test_forking_request_waits_for_all_of_its_slots() -> None:
    simulation = Simulation(config(max_num_seqs=3))
    simulation.add([1], max_tokens=2)
    simulation.add([2], max_tokens=3, n=3)
    assert scheduled_ids(simulation.step()) == [(0, 1)]
    simulation.run()
    simulation.check_tokens()


def test_held_sequences_give_way_when_nothing_else_can_run() -> None:
    """Two beams of one request in a cache that holds only one: each computes in its turn."""
    simulation = Simulation(config(max_num_batched_tokens=64, max_num_seqs=2), num_blocks=4)
    scheduler = simulation.scheduler
    first = simulation.add(list(range(11)), max_tokens=5)
    first.num_slots = 2
    out = scheduler.schedule(1.0)
    scheduler.advance(out)  # it has computed all of its tokens and has reported
    child = Sequence(
        seq_id=1, request=first.request, token_ids=[*range(11), 30], index=1, max_num_tokens=16
    )
    scheduler.fork(first, child)
    first.token_ids.append(20)
    simulation.sequences.append(child)
    for _ in range(2):  # both compute; the partial block is copied into the last free one
        out = scheduler.schedule(2.0)
        scheduler.advance(out)
    assert scheduler.num_running == 2
    child.token_ids += [31, 32]  # needs a further block: only the held one can give way
    scheduler.resume(child)
    seen = []
    for _ in range(4):
        out = scheduler.schedule(3.0)
        seen += [scheduled.seq for scheduled in out.scheduled]
        scheduler.advance(out)
        scheduler.check_integrity()
        if child.num_computed_tokens == child.num_tokens:
            break
    assert child in seen
    assert first.status is SequenceStatus.HELD
    scheduler.finish(first)
    scheduler.finish(child)
    assert scheduler.pool.num_free == 4
    scheduler.check_integrity()


def test_budget_below_the_number_of_sequences_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="max_num_batched_tokens"):
        Scheduler(config(max_num_seqs=8, max_num_batched_tokens=7), NUM_BLOCKS)


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 8),  # step of arrival
        st.lists(st.integers(0, 1), min_size=1, max_size=24),  # a small alphabet shares prefixes
        st.integers(1, 12),  # max_tokens
        st.integers(1, 3),  # n
        st.integers(0, 2),  # priority
        st.none() | st.integers(1, 30),  # step at which it is cancelled
        st.none() | st.integers(1, 40),  # deadline
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(
    requests=REQUESTS,
    block_size=st.sampled_from([1, 2, 4, 8]),
    spare_blocks=st.integers(0, 12),
    budget=st.integers(3, 40),
    max_num_seqs=st.integers(3, 6),
    caching=st.booleans(),
)
def test_random_schedules_compute_the_same_tokens_and_give_everything_back(
    requests: list[tuple[int, list[int], int, int, int, int | None, int | None]],
    block_size: int,
    spare_blocks: int,
    budget: int,
    max_num_seqs: int,
    caching: bool,
) -> None:
    longest = max(len(prompt) + max_tokens for _, prompt, max_tokens, *_ in requests)
    simulation = Simulation(
        config(
            block_size=block_size,
            max_num_batched_tokens=max(budget, max_num_seqs),
            max_num_seqs=max_num_seqs,
            enable_prefix_caching=caching,
        ),
        num_blocks=math.ceil(longest / block_size) + spare_blocks,
    )
    for step in range(2000):
        for arrival, prompt, max_tokens, n, priority, _, deadline in requests:
            if arrival == step:
                deadline_s = None if deadline is None else float(arrival + deadline)
                simulation.add(prompt, max_tokens, n, priority=priority, deadline_s=deadline_s)
        for seq in simulation.sequences:
            cancel = requests[int(seq.request.request_id) % len(requests)][5]
            if cancel == step:
                simulation.scheduler.finish(seq)
        simulation.step()
        if step > 8 and not simulation.scheduler.has_work:
            break
    else:
        raise AssertionError("the schedule does not end")
    simulation.check_tokens()
    assert simulation.scheduler.pool.num_free == simulation.num_blocks
    for seq in simulation.sequences:
        assert seq.status is SequenceStatus.FINISHED
