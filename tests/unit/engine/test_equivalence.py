"""However a request is scheduled, it computes the same: the equivalences of the design, section 4.

Small models with random weights, float32. Every case is held against the plainest run: one request
at a time, whole prompt, no prefix cache, plain attention.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.engine.config import EngineConfig
from services.engine.engine import LLMEngine
from services.engine.fault_isolation import Runner
from services.engine.kv_cache import bytes_per_block
from services.engine.request import FinishReason, Request, RequestOutput, SamplingParams, Sequence
from services.engine.scheduler import SchedulerOutput
from services.engine.step_result import StepResult
from services.engine.weights import LoadedModel, load_model
from tests.fakes.random_models import VOCAB_SIZE, save_random_model
from tests.unit.engine.toy import run_to_end

# Context limit of the engines here; prompts and completions are well below it.
MAX_MODEL_LEN = 96
NUM_NEW_TOKENS = 20
# Where the two best tokens are closer than this, the order of float32 sums decides between them.
DECISIVE_MARGIN = 1e-3
PLAIN: dict[str, Any] = {
    "attention_backend": "reference",
    "enable_prefix_caching": False,
    "max_num_seqs": 1,
    "max_num_batched_tokens": 512,
}


def make_engine(model: LoadedModel, num_blocks: int | None = None, **changes: Any) -> LLMEngine:
    values = {
        "num_threads": 1,
        "block_size": 4,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "max_model_len": MAX_MODEL_LEN,
        **changes,
    }
    config = EngineConfig.model_validate(values)
    if num_blocks is None:
        num_blocks = 1200 // config.block_size
    per_block = bytes_per_block(model.config, config, model.dtype)
    config = config.model_copy(update={"kv_cache_bytes": num_blocks * per_block})
    engine = LLMEngine(model, None, config)
    assert engine.load().num_blocks == num_blocks
    return engine


def fewest_blocks(block_size: int) -> int:
    """As many as one sequence of full context needs: the least a cache may have."""
    return math.ceil(MAX_MODEL_LEN / block_size)


def greedy(max_tokens: int = NUM_NEW_TOKENS, **params: Any) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True, **params)


def run(engine: LLMEngine, requests: list[Request]) -> dict[str, RequestOutput]:
    for request in requests:
        engine.add_request(request)
    outputs = run_to_end(engine)
    assert all(output.error is None for output in outputs.values())
    return outputs


def tokens(output: RequestOutput) -> list[int]:
    [completion] = output.outputs
    return completion.token_ids


@dataclass
class Case:
    """A model, prompts that share prefixes, and how the plain engine continues them."""

    model: LoadedModel
    prompts: list[list[int]] = field(default_factory=list)
    continuations: list[list[int]] = field(default_factory=list)

    def requests(self, **params: Any) -> list[Request]:
        return [Request(str(i), p, greedy(**params)) for i, p in enumerate(self.prompts)]

    def check(self, outputs: dict[str, RequestOutput]) -> None:
        for number, continuation in enumerate(self.continuations):
            assert tokens(outputs[str(number)]) == continuation


@pytest.fixture(scope="module", params=["llama-gqa", "gpt2", "mistral-window"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder: Path = tmp_path_factory.mktemp("model")
    model = load_model(save_random_model(folder, request.param))
    rng = random.Random(1)
    trunk = [rng.randrange(VOCAB_SIZE) for _ in range(40)]
    case = Case(model)
    engine = make_engine(model, **PLAIN)
    while len(case.prompts) < 10:
        shared = rng.choice([0, 0, 8, 21, 40])
        prompt = trunk[:shared] + [rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, 24))]
        [output] = run(engine, [Request("plain", prompt, greedy(logprobs=2))]).values()
        positions = output.outputs[0].logprobs or []
        margins = [position.top[0].logprob - position.top[1].logprob for position in positions]
        if min(margins) > DECISIVE_MARGIN:
            case.prompts.append(prompt)
            case.continuations.append(tokens(output))
    return case


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_batched_equals_single(case: Case, backend: str) -> None:
    engine = make_engine(case.model, attention_backend=backend, max_num_batched_tokens=512)
    case.check(run(engine, case.requests()))


def test_paged_blocks_of_any_size_equal_one_block(case: Case) -> None:
    for block_size in (1, 3, 16, MAX_MODEL_LEN):
        engine = make_engine(case.model, block_size=block_size)
        case.check(run(engine, case.requests()[:4] + case.requests()[4:]))


@pytest.mark.parametrize("budget", [8, 13])
def test_chunked_prefill_equals_whole(case: Case, budget: int) -> None:
    engine = make_engine(case.model, max_num_batched_tokens=budget, enable_prefix_caching=False)
    case.check(run(engine, case.requests()))


def test_cached_prefix_equals_uncached(case: Case) -> None:
    engine = make_engine(case.model)
    case.check(run(engine, case.requests()))
    again = run(engine, case.requests())
    case.check(again)
    for prompt, output in zip(case.prompts, (again[str(i)] for i in range(10)), strict=True):
        assert output.num_cached_tokens == (len(prompt) - 1) // 4 * 4
    # And what was generated is reused by a prompt that holds it.
    longer = case.prompts[0] + case.continuations[0]
    request = Request("longer", longer[:-1], greedy(max_tokens=1))
    output = run(engine, [request])["longer"]
    assert tokens(output) == longer[-1:]
    assert output.num_cached_tokens == (len(longer) - 2) // 4 * 4


@pytest.mark.parametrize("caching", [True, False])
def test_preempted_equals_uninterrupted(case: Case, caching: bool) -> None:
    engine = make_engine(case.model, fewest_blocks(4), enable_prefix_caching=caching)
    case.check(run(engine, case.requests()))
    assert engine.load().num_preemptions > 0


def test_eviction_of_cached_prefixes_changes_nothing(case: Case) -> None:
    engine = make_engine(case.model, fewest_blocks(4), max_num_seqs=1)
    for _ in range(2):
        for request in case.requests():
            output = run(engine, [request])[request.request_id]
            assert tokens(output) == case.continuations[int(request.request_id)]
    load = engine.load()
    assert 0 < load.prefix_hits < load.prefix_queries


class AtIndex:
    """A runner for which every sequence is completion `index` of its request."""

    def __init__(self, runner: Runner, index: int) -> None:
        self._runner = runner
        self._index = index
        self.num_blocks = runner.num_blocks

    def execute(self, out: SchedulerOutput) -> StepResult:
        for scheduled in out.scheduled:
            scheduled.seq.index = self._index
        result = self._runner.execute(out)
        for scheduled in out.scheduled:
            scheduled.seq.index = 0
        return result

    def release(self, seq: Sequence) -> None:
        self._runner.release(seq)


def test_forked_equals_independent(case: Case) -> None:
    """`n` completions from one prompt, and each of them computed by a request of its own."""
    params: dict[str, Any] = {"max_tokens": 12, "seed": 11, "ignore_eos": True}
    for prompt in case.prompts[:3]:
        forked = run(make_engine(case.model), [Request("r", prompt, SamplingParams(n=4, **params))])
        completions = {c.index: c.token_ids for c in forked["r"].outputs}
        assert len({tuple(token_ids) for token_ids in completions.values()}) > 1
        for index in range(4):
            engine = make_engine(case.model, **PLAIN)
            engine.runner = AtIndex(engine.runner, index)
            output = run(engine, [Request("r", prompt, SamplingParams(**params))])["r"]
            assert tokens(output) == completions[index]


def test_forked_under_pressure_equals_forked_at_ease(case: Case) -> None:
    params = SamplingParams(n=4, max_tokens=30, temperature=1.0, seed=5, ignore_eos=True)
    requests = [Request(str(i), prompt, params) for i, prompt in enumerate(case.prompts[:3])]
    at_ease = run(make_engine(case.model), requests)
    engine = make_engine(case.model, fewest_blocks(4))
    pressed = run(engine, requests)
    assert engine.load().num_preemptions > 0
    for name, output in at_ease.items():
        expected = {c.index: c.token_ids for c in output.outputs}
        assert {c.index: c.token_ids for c in pressed[name].outputs} == expected


def test_seeded_sampling_is_the_same_alone_and_in_any_batch(case: Case) -> None:
    def requests() -> list[Request]:
        return [
            Request(
                str(i),
                prompt,
                SamplingParams(
                    max_tokens=12,
                    temperature=0.5 + 0.1 * i,
                    top_p=1.0 if i % 2 else 0.9,
                    top_k=0 if i % 3 else 20,
                    repetition_penalty=1.0 if i % 4 else 1.3,
                    seed=100 + i,
                    ignore_eos=True,
                ),
            )
            for i, prompt in enumerate(case.prompts)
        ]

    alone = {}
    for request in requests():
        alone |= run(make_engine(case.model, **PLAIN), [request])
    together = run(make_engine(case.model, max_num_batched_tokens=16), requests())
    backwards = run(make_engine(case.model, fewest_blocks(4)), requests()[::-1])
    for name, output in alone.items():
        assert tokens(together[name]) == tokens(output)
        assert tokens(backwards[name]) == tokens(output)


def test_prompt_logprobs_in_chunks_equal_those_in_one(case: Case) -> None:
    def scores(engine: LLMEngine) -> list[list[float]]:
        requests = [
            Request(str(i), prompt, SamplingParams(max_tokens=0, prompt_logprobs=1))
            for i, prompt in enumerate(case.prompts)
        ]
        outputs = run(engine, requests)
        return [
            [
                position.chosen.logprob
                for position in outputs[str(i)].prompt_logprobs or []
                if position.chosen is not None
            ]
            for i in range(len(requests))
        ]

    whole = scores(make_engine(case.model, **PLAIN))
    chunked = scores(make_engine(case.model, max_num_batched_tokens=9))
    for prompt, one, other in zip(case.prompts, whole, chunked, strict=True):
        assert len(one) == len(prompt) - 1
        assert other == pytest.approx(one, abs=1e-4)


SCHEDULES = st.fixed_dictionaries(
    {
        "block_size": st.sampled_from([1, 2, 4, 8, 16]),
        "spare_blocks": st.integers(0, 30),
        "max_num_batched_tokens": st.integers(8, 80),
        "max_num_seqs": st.integers(2, 8),
        "enable_prefix_caching": st.booleans(),
        "attention_backend": st.sampled_from(["reference", "cpu"]),
    }
)
ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 9),  # which prompt
        st.integers(0, 12),  # at which step it comes
        st.integers(1, NUM_NEW_TOKENS),  # max_tokens
        st.integers(0, 2),  # priority
        st.none() | st.integers(0, 30),  # at which step it is cancelled
    ),
    min_size=1,
    max_size=10,
)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(schedule=SCHEDULES, arrivals=ARRIVALS)
def test_random_schedules_equal_the_plain_run(
    case: Case,
    schedule: dict[str, Any],
    arrivals: list[tuple[int, int, int, int, int | None]],
) -> None:
    schedule = dict(schedule)
    num_blocks = fewest_blocks(schedule["block_size"]) + schedule.pop("spare_blocks")
    engine = make_engine(case.model, num_blocks, **schedule)
    generated: dict[str, list[int]] = {}
    ended: dict[str, FinishReason] = {}
    for step in range(2000):
        for number, (prompt, arrival, max_tokens, priority, _) in enumerate(arrivals):
            if arrival == step:
                engine.add_request(
                    Request(str(number), case.prompts[prompt], greedy(max_tokens), priority)
                )
        for number, (*_, cancel) in enumerate(arrivals):
            if cancel == step:
                engine.abort(str(number))
        for output in engine.step():
            assert output.error is None
            generated.setdefault(output.request_id, []).extend(output.outputs[0].token_ids)
            if output.finished:
                reason = output.outputs[0].finish_reason
                assert reason is not None
                ended[output.request_id] = reason
        engine.check_integrity()
        if step > 12 and not engine.has_unfinished():
            break
    for number, (prompt, arrival, max_tokens, _, cancel) in enumerate(arrivals):
        got = generated.get(str(number), [])
        assert got == case.continuations[prompt][: len(got)]
        if cancel is None or cancel < arrival:
            assert ended[str(number)] is FinishReason.LENGTH
            assert len(got) == max_tokens
    load = engine.load()
    assert load.num_free_blocks == load.num_blocks


def test_five_hundred_random_cancels_leave_every_block_free(case: Case) -> None:
    rng = random.Random(3)
    engine = make_engine(case.model, 2 * fewest_blocks(4), max_num_waiting=1000)
    live: list[str] = []
    for number in range(500):
        prompt = case.prompts[number % len(case.prompts)]
        params = SamplingParams(max_tokens=30, n=rng.randint(1, 3), seed=number)
        engine.add_request(Request(str(number), prompt, params, priority=rng.randint(0, 2)))
        live.append(str(number))
        if len(live) > 12:
            engine.abort(live.pop(rng.randrange(len(live))))
        if rng.random() < 0.15:
            engine.step()
        engine.check_integrity()
    for name in live:
        engine.abort(name)
    engine.check_integrity()
    assert engine.load().num_finished == 500
    assert engine.load().num_free_blocks == engine.load().num_blocks


def test_prompt_sharing_a_prefix_of_512_tokens_computes_only_the_rest(tmp_path: Path) -> None:
    model = load_model(save_random_model(tmp_path, max_position_embeddings=1024))
    config = EngineConfig(num_threads=1, max_model_len=600)
    engine = LLMEngine(model, None, config)
    rng = random.Random(2)
    prefix = [rng.randrange(VOCAB_SIZE) for _ in range(512)]
    run(engine, [Request("first", [*prefix, 1, 2, 3], greedy(2))])
    engine.add_request(Request("second", [*prefix, 4, 5], greedy(2)))
    out = engine.scheduler.schedule(0.0)
    assert [scheduled.num_tokens for scheduled in out.scheduled] == [2]
    engine.abort("second")
    output = run(engine, [Request("second", [*prefix, 4, 5], greedy(2))])["second"]
    assert output.num_cached_tokens == 512
    plain = LLMEngine(model, None, config.model_copy(update={"enable_prefix_caching": False}))
    expected = run(plain, [Request("second", [*prefix, 4, 5], greedy(2))])["second"]
    assert tokens(output) == tokens(expected)
    assert expected.num_cached_tokens == 0
