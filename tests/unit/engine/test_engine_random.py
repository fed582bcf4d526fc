"""Whatever comes and goes, every request ends exactly once and nothing is left behind."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.engine.errors import QueueFullError
from services.engine.request import FinishReason, Request, RequestOutput, SamplingParams
from tests.unit.engine.toy import ToyRunner, continuation, text_of, toy_engine


@dataclass(frozen=True)
class Visit:
    """A request and what befalls it; steps count from the start of the test."""

    arrives: int
    prompt: list[int]
    max_tokens: int
    n: int
    more: int  # best_of = n + more
    priority: int
    cancelled: int | None
    expires: int | None
    poisonous_from: int | None


VISITS = st.lists(
    st.builds(
        Visit,
        arrives=st.integers(0, 10),
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=20),
        max_tokens=st.integers(1, 16),
        n=st.integers(1, 3),
        more=st.sampled_from([0, 0, 1]),
        priority=st.integers(-1, 1),
        cancelled=st.none() | st.none() | st.integers(0, 30),
        expires=st.none() | st.none() | st.integers(0, 30),
        poisonous_from=st.none() | st.none() | st.none() | st.integers(0, 20),
    ),
    min_size=1,
    max_size=14,
)


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    visits=VISITS,
    num_blocks=st.integers(9, 40),
    budget=st.integers(4, 40),
    max_num_waiting=st.integers(0, 12),
    caching=st.booleans(),
)
def test_every_request_ends_once_and_gives_everything_back(
    visits: list[Visit], num_blocks: int, budget: int, max_num_waiting: int, caching: bool
) -> None:
    engine = toy_engine(
        num_blocks,
        max_num_batched_tokens=budget,
        max_num_waiting=max_num_waiting,
        enable_prefix_caching=caching,
    )
    runner = engine.runner
    assert isinstance(runner, ToyRunner)
    live: dict[str, Request] = {}
    outputs: dict[str, RequestOutput] = {}
    for step in range(3000):
        for number, visit in enumerate(visits):
            name = str(number)
            if visit.arrives == step:
                params = SamplingParams(
                    max_tokens=visit.max_tokens,
                    n=visit.n,
                    best_of=visit.n + visit.more,
                )
                request = Request(name, visit.prompt, params, priority=visit.priority)
                try:
                    engine.add_request(request)
                except QueueFullError:
                    continue
                live[name] = request
            if visit.cancelled == step:
                engine.abort(name)
                live.pop(name, None)
            if visit.expires == step and name in live:
                live[name].deadline_s = time.monotonic() - 1.0
                engine.scheduler._next_expiry = 0.0
            if visit.poisonous_from == step:
                runner.poisoned.add(name)
        for output in engine.step():
            assert output.request_id in live, "news of a request that is over"
            if output.request_id in outputs:
                outputs[output.request_id].extend(output)
            else:
                outputs[output.request_id] = output
            if output.finished:
                del live[output.request_id]
        engine.check_integrity()
        if step > 30 and not engine.has_unfinished():
            break
    assert not live
    assert runner.known == set()
    for name, output in outputs.items():
        check(visits[int(name)], output)


def check(visit: Visit, output: RequestOutput) -> None:
    for completion in output.outputs:
        if visit.more == 0:  # else the indices are ranks
            count = len(completion.token_ids)
            assert completion.token_ids == continuation(visit.prompt, count, completion.index)
        if not output.finished:
            continue
        assert completion.finish_reason is not None
        if completion.finish_reason is FinishReason.LENGTH:
            assert len(completion.token_ids) == visit.max_tokens
            assert completion.text == text_of(completion.token_ids)
        if completion.finish_reason is FinishReason.DEADLINE:
            assert visit.expires is not None
        if completion.finish_reason is FinishReason.ERROR:
            assert visit.poisonous_from is not None
            assert output.error is not None
    if output.finished:
        assert len(output.outputs) == visit.n
