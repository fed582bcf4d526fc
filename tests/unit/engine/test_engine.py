"""The engine's step: what requests get, how they end, and that one cannot hurt another."""

from __future__ import annotations

import time
from typing import Any

import pytest

from services.engine.engine import LLMEngine
from services.engine.errors import (
    ContextTooLongError,
    EngineDeadError,
    EngineError,
    InvalidRequestError,
    QueueFullError,
)
from services.engine.request import FinishReason, Request, RequestOutput, SamplingParams
from services.engine.stats import RequestStats, StepStats
from services.engine.step_result import SampledToken
from tests.unit.engine.toy import (
    EOS,
    VOCAB_SIZE,
    ToyRunner,
    continuation,
    run_one,
    run_to_end,
    text_of,
    toy_engine,
)

PROMPT = [1, 2, 3]


def request(name: str = "r", prompt: list[int] | None = None, **params: Any) -> Request:
    return Request(name, PROMPT if prompt is None else prompt, SamplingParams(**params))


def toy_runner(engine: LLMEngine) -> ToyRunner:
    assert isinstance(engine.runner, ToyRunner)
    return engine.runner


def say(engine: LLMEngine, tokens: list[int]) -> None:
    """Makes the model generate these tokens, over and over."""
    toy_runner(engine).choose = lambda seq, _: tokens[seq.num_output_tokens % len(tokens)]


# What a request gets -------------------------------------------------------------------------


def test_tokens_and_text_come_step_by_step_and_add_up() -> None:
    engine = toy_engine()
    engine.add_request(request(max_tokens=6))
    seen: list[RequestOutput] = []
    while engine.has_unfinished():
        seen += engine.step()
    assert [len(output.outputs[0].token_ids) for output in seen] == [1] * 6
    assert [output.finished for output in seen] == [False] * 5 + [True]
    assert [output.num_output_tokens for output in seen] == [1, 2, 3, 4, 5, 6]
    tokens = [output.outputs[0].token_ids[0] for output in seen]
    assert tokens == continuation(PROMPT, 6)
    assert "".join(output.outputs[0].text for output in seen) == text_of(tokens)
    assert seen[-1].outputs[0].finish_reason is FinishReason.LENGTH


def test_completions_of_n_are_streamed_under_their_indices() -> None:
    engine = toy_engine()
    output = run_one(engine, request(max_tokens=5, n=3))
    assert [completion.index for completion in output.outputs] == [0, 1, 2]
    for completion in output.outputs:
        assert completion.token_ids == continuation(PROMPT, 5, completion.index)
    assert output.num_output_tokens == 15


def test_completions_of_n_compute_the_prompt_once() -> None:
    engine = toy_engine()
    run_one(engine, request(prompt=list(range(20)), max_tokens=3, n=4))
    assert toy_runner(engine).num_computed_tokens == 20 + 4 * 2


def test_best_of_speaks_once_and_ranks_by_logprob_per_token() -> None:
    engine = toy_engine()
    # Completion i generates token 10 * i: completion 0 is the likeliest (see ToyRunner).
    toy_runner(engine).choose = lambda seq, index: 10 * (3 - index)
    engine.add_request(request(max_tokens=2, n=2, best_of=4))
    outputs = [output for _ in range(4) for output in engine.step()]
    assert len(outputs) == 1
    assert outputs[0].finished
    assert [completion.index for completion in outputs[0].outputs] == [0, 1]
    assert [completion.token_ids for completion in outputs[0].outputs] == [[0, 0], [10, 10]]
    assert outputs[0].outputs[0].cumulative_logprob == pytest.approx(-0.02)
    assert outputs[0].num_output_tokens == 8


def test_logprobs_name_their_tokens() -> None:
    output = run_one(toy_engine(), request(max_tokens=3, logprobs=0))
    completion = output.outputs[0]
    assert completion.logprobs is not None
    assert [p.chosen.token_id for p in completion.logprobs if p.chosen] == completion.token_ids
    assert completion.logprobs[0].chosen is not None
    assert completion.logprobs[0].chosen.token == text_of(completion.token_ids[:1])
    total = sum(p.chosen.logprob for p in completion.logprobs if p.chosen)
    assert completion.cumulative_logprob == pytest.approx(total)


@pytest.mark.parametrize("budget", [4, 7, 32])
def test_score_covers_the_whole_prompt_in_chunks(budget: int) -> None:
    engine = toy_engine(max_num_batched_tokens=budget)
    prompt = list(range(20))
    output = run_one(engine, request(prompt=prompt, max_tokens=0, prompt_logprobs=0))
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0].chosen is None
    chosen = [p.chosen.token_id for p in output.prompt_logprobs[1:] if p.chosen]
    assert chosen == prompt[1:]
    assert output.outputs[0].token_ids == []
    assert output.outputs[0].finish_reason is FinishReason.LENGTH
    assert output.num_output_tokens == 0


def test_prompt_logprobs_come_with_the_first_output_only() -> None:
    engine = toy_engine()
    engine.add_request(request(max_tokens=3, prompt_logprobs=1))
    outputs = [output for _ in range(3) for output in engine.step()]
    assert [output.prompt_logprobs is not None for output in outputs] == [True, False, False]


def test_score_survives_preemption_with_one_entry_per_token() -> None:
    engine = toy_engine(num_blocks=16, max_num_batched_tokens=8)
    prompt = list(range(40))
    engine.add_request(request("score", prompt, max_tokens=0, prompt_logprobs=0))
    engine.step()
    engine.step()
    [score] = engine.scheduler.sequences
    engine.scheduler.preempt(score)
    engine.runner.release(score)
    output = run_to_end(engine)["score"]
    assert output.prompt_logprobs is not None
    assert [p.chosen.token_id for p in output.prompt_logprobs[1:] if p.chosen] == prompt[1:]


def test_usage_counts_cached_tokens() -> None:
    engine = toy_engine()
    prompt = list(range(16))
    assert run_one(engine, request("a", [*prompt, 50], max_tokens=2)).num_cached_tokens == 0
    output = run_one(engine, request("b", [*prompt, 60, 61], max_tokens=2))
    assert output.num_cached_tokens == 16
    assert output.num_prompt_tokens == 18
    load = engine.load()
    assert (load.prefix_queries, load.prefix_hits) == (17 + 18, 16)
    assert (load.num_prompt_tokens, load.num_cached_tokens) == (17 + 18, 16)


def test_timing_adds_up() -> None:
    timing = run_one(toy_engine(), request(max_tokens=4)).timing
    assert min(timing.queue_s, timing.prefill_s, timing.decode_s) >= 0
    assert timing.queue_s + timing.prefill_s + timing.decode_s == pytest.approx(timing.total_s)


# How a request ends --------------------------------------------------------------------------


def test_eos_stops_and_is_not_text() -> None:
    engine = toy_engine()
    say(engine, [10, 11, EOS, 12])
    completion = run_one(engine, request(max_tokens=10)).outputs[0]
    assert completion.token_ids == [10, 11, EOS]
    assert completion.text == text_of([10, 11])
    assert completion.finish_reason is FinishReason.STOP
    assert completion.stop_reason == EOS


def test_ignored_eos_does_not_stop() -> None:
    engine = toy_engine()
    say(engine, [10, EOS])
    completion = run_one(engine, request(max_tokens=5, ignore_eos=True)).outputs[0]
    assert completion.token_ids == [10, EOS, 10, EOS, 10]
    assert completion.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(("included", "text"), [(False, [10]), (True, [10, 11])])
def test_stop_token_ends_and_is_shown_only_when_asked(included: bool, text: list[int]) -> None:
    engine = toy_engine()
    say(engine, [10, 11, 12])
    params = {"stop_token_ids": (11,), "include_stop_in_output": included}
    completion = run_one(engine, request(max_tokens=5, **params)).outputs[0]
    assert completion.token_ids == [10, 11]
    assert completion.text == text_of(text)
    assert (completion.finish_reason, completion.stop_reason) == (FinishReason.STOP, 11)


def test_stop_string_over_two_tokens_is_never_emitted() -> None:
    engine = toy_engine()
    say(engine, [10, 11, 12, 13])
    engine.add_request(request(max_tokens=8, stop=(text_of([12, 13]),)))
    texts = [output.outputs[0].text for _ in range(4) for output in engine.step()]
    assert "".join(texts) == text_of([10, 11])
    assert not engine.has_unfinished()


def test_text_held_back_for_a_stop_string_is_released_at_the_end() -> None:
    engine = toy_engine()
    say(engine, [10, 11])
    completion = run_one(engine, request(max_tokens=2, stop=(text_of([11, 12]),))).outputs[0]
    assert completion.text == text_of([10, 11])
    assert completion.finish_reason is FinishReason.LENGTH


def test_stop_on_the_last_token_is_stop_rather_than_length() -> None:
    engine = toy_engine()
    say(engine, [10, EOS])
    completion = run_one(engine, request(max_tokens=2)).outputs[0]
    assert completion.finish_reason is FinishReason.STOP


def test_max_tokens_defaults_to_what_is_left_of_the_context() -> None:
    completion = run_one(toy_engine(), request(prompt=list(range(60)))).outputs[0]
    assert len(completion.token_ids) == 4
    assert completion.finish_reason is FinishReason.LENGTH


def test_completions_of_one_request_end_each_for_itself() -> None:
    engine = toy_engine()
    toy_runner(engine).choose = lambda seq, index: (
        EOS if seq.num_output_tokens == index else 10 + index
    )
    output = run_one(engine, request(max_tokens=3, n=4))
    assert [len(completion.token_ids) for completion in output.outputs] == [1, 2, 3, 3]
    reasons = [completion.finish_reason for completion in output.outputs]
    assert reasons == [FinishReason.STOP] * 3 + [FinishReason.LENGTH]


def test_abort_frees_at_once_and_says_nothing() -> None:
    engine = toy_engine()
    engine.add_request(request("a", max_tokens=30, n=3))
    engine.add_request(request("b", max_tokens=30))
    engine.step()
    engine.abort("a")
    engine.abort("unknown")
    engine.check_integrity()
    assert engine.load().num_running == 1
    assert {output.request_id for output in engine.step()} == {"b"}
    engine.abort("b")
    assert engine.load().num_free_blocks == engine.load().num_blocks
    assert toy_runner(engine).known == set()


def test_request_queued_past_its_deadline_ends_as_deadline_at_no_cost() -> None:
    engine = toy_engine(max_num_seqs=1)
    engine.add_request(request("a", max_tokens=10))
    engine.step()
    late = request("b", max_tokens=1)
    late.deadline_s = time.monotonic() - 0.001
    engine.add_request(late)
    before = toy_runner(engine).num_computed_tokens
    outputs = {output.request_id: output for output in engine.step()}
    assert outputs["b"].finished
    assert outputs["b"].outputs[0].finish_reason is FinishReason.DEADLINE
    assert outputs["b"].num_output_tokens == 0
    assert toy_runner(engine).num_computed_tokens == before + 1
    run_to_end(engine)


def test_running_request_past_its_deadline_ends_as_deadline_with_its_tokens() -> None:
    engine = toy_engine()
    running = request(max_tokens=30, n=2)
    running.deadline_s = time.monotonic() + 3600
    engine.add_request(running)
    engine.step()
    running.deadline_s = time.monotonic() - 0.001
    engine.scheduler._next_expiry = 0.0
    [output] = engine.step()
    assert output.finished
    reasons = [completion.finish_reason for completion in output.outputs]
    assert reasons == [FinishReason.DEADLINE] * 2
    assert output.num_output_tokens == 2


def test_length_after_the_deadline_is_called_deadline() -> None:
    engine = toy_engine()
    slow = request(max_tokens=1)
    slow.deadline_s = time.monotonic() + 3600
    engine.add_request(slow)

    def outlive() -> None:
        slow.deadline_s = time.monotonic() - 0.001

    toy_runner(engine).before_step = outlive
    [output] = engine.step()
    assert output.outputs[0].finish_reason is FinishReason.DEADLINE


# What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "params", "field"),
    [
        ([], {}, "prompt"),
        ([1, VOCAB_SIZE], {}, "prompt_token_ids"),
        ([-1], {}, "prompt_token_ids"),
        (PROMPT, {"stop_token_ids": (VOCAB_SIZE,)}, "stop_token_ids"),
        (PROMPT, {"logit_bias": {VOCAB_SIZE: 1.0}}, "logit_bias"),
        (PROMPT, {"allowed_token_ids": (-1,)}, "allowed_token_ids"),
        (PROMPT, {"banned_token_ids": (VOCAB_SIZE,)}, "banned_token_ids"),
        (PROMPT, {"allowed_token_ids": (5,), "banned_token_ids": (5,)}, "allowed_token_ids"),
        (PROMPT, {"min_tokens": 62}, "min_tokens"),
        (PROMPT, {"n": 5}, "n"),
        (PROMPT, {"n": 1, "best_of": 5}, "best_of"),
        (PROMPT, {"beam_width": 5}, "beam_width"),
        (PROMPT, {"max_tokens": 0, "prompt_logprobs": 0, "n": 2}, "n"),
    ],
)
def test_request_that_does_not_fit_the_model_is_refused_by_field(
    prompt: list[int], params: dict[str, Any], field: str
) -> None:
    engine = toy_engine()
    with pytest.raises(InvalidRequestError) as caught:
        engine.add_request(request(prompt=prompt, **params))
    assert caught.value.field == field
    assert not engine.has_unfinished()


@pytest.mark.parametrize(
    ("length", "max_tokens", "numbers"),
    [(64, None, ["64"]), (70, 1, ["64", "70"]), (60, 5, ["64", "60", "5", "65"])],
)
def test_prompt_over_the_context_is_refused_naming_the_numbers(
    length: int, max_tokens: int | None, numbers: list[str]
) -> None:
    engine = toy_engine()
    with pytest.raises(ContextTooLongError) as caught:
        engine.add_request(request(prompt=[1] * length, max_tokens=max_tokens))
    assert all(number in str(caught.value) for number in numbers)
    engine.add_request(request(prompt=[1] * 60, max_tokens=4))
    run_to_end(engine)


def test_score_may_fill_the_context() -> None:
    output = run_one(toy_engine(), request(prompt=[1] * 64, max_tokens=0, prompt_logprobs=0))
    assert output.prompt_logprobs is not None
    assert len(output.prompt_logprobs) == 64


def test_stop_strings_without_a_tokenizer_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="tokenizer"):
        toy_engine(tokenizer=False).add_request(request(stop=("x",)))


def test_request_id_in_use_is_refused_and_free_again_afterwards() -> None:
    engine = toy_engine()
    engine.add_request(request("a", max_tokens=2))
    with pytest.raises(InvalidRequestError, match="in use"):
        engine.add_request(request("a", max_tokens=2))
    run_to_end(engine)
    run_one(engine, request("a", max_tokens=2))


def test_full_queue_refuses_and_holds_nothing() -> None:
    engine = toy_engine(max_num_seqs=1, max_num_waiting=1)
    engine.add_request(request("a", max_tokens=2))
    engine.add_request(request("b", max_tokens=2))
    with pytest.raises(QueueFullError) as caught:
        engine.add_request(request("c", max_tokens=2))
    assert caught.value.retry_after_s >= 1.0
    assert set(run_to_end(engine)) == {"a", "b"}


# One request cannot hurt another -------------------------------------------------------------


def test_error_while_processing_one_request_ends_that_one_alone() -> None:
    class Broken(RuntimeError):
        pass

    class BrokenDetokenizer:
        def push(self, token_id: int) -> Any:
            raise Broken("no such character")

    engine = toy_engine(max_num_seqs=8)
    for name in "abc":
        engine.add_request(request(name, max_tokens=6, n=2))
    engine.step()
    engine._states["b"].completions[1].detokenizer = BrokenDetokenizer()  # type: ignore[assignment]
    outputs = run_to_end(engine)
    assert isinstance(outputs["b"].error, Broken)
    reasons = {completion.finish_reason for completion in outputs["b"].outputs}
    assert reasons == {FinishReason.ERROR}
    for name in "ac":
        assert outputs[name].error is None
        for completion in outputs[name].outputs:
            assert completion.token_ids == continuation(PROMPT, 6, completion.index)[1:]


def test_request_that_breaks_the_step_ends_alone_and_the_rest_lose_nothing() -> None:
    engine = toy_engine()
    for name in "abcd":
        engine.add_request(request(name, [ord(name) - 90], max_tokens=8))
    engine.step()
    toy_runner(engine).poisoned.add("c")
    outputs = run_to_end(engine)
    assert isinstance(outputs["c"].error, RuntimeError)
    assert outputs["c"].outputs[0].finish_reason is FinishReason.ERROR
    for name in "abd":
        expected = continuation([ord(name) - 90], 8)[1:]
        assert outputs[name].outputs[0].token_ids == expected
    assert toy_runner(engine).known == set()


def test_step_that_fails_while_forks_copy_blocks_recomputes_the_copies() -> None:
    engine = toy_engine()
    engine.add_request(request("forks", list(range(10)), max_tokens=6, n=3))
    engine.step()
    toy_runner(engine).poisoned.add("bad")
    engine.add_request(request("bad", [50], max_tokens=5))
    outputs = run_to_end(engine)
    assert outputs["bad"].error is not None
    for completion in outputs["forks"].outputs:
        assert completion.token_ids == continuation(list(range(10)), 6, completion.index)[1:]
    assert engine.load().num_preemptions > 0


def test_output_that_is_no_distribution_is_an_error_of_its_request() -> None:
    engine = toy_engine()
    execute = toy_runner(engine).execute

    def broken_for_b(out: Any) -> Any:
        result = execute(out)
        names = [s.seq.request.request_id for s in out.scheduled]
        result.samples = [
            SampledToken(0, valid=False) if name == "b" else sample
            for name, sample in zip(names, result.samples, strict=True)
        ]
        return result

    toy_runner(engine).execute = broken_for_b  # type: ignore[method-assign]
    engine.add_request(request("a", max_tokens=3))
    engine.add_request(request("b", max_tokens=3))
    outputs = run_to_end(engine)
    assert isinstance(outputs["b"].error, EngineError)
    assert outputs["a"].outputs[0].token_ids == continuation(PROMPT, 3)


def test_engine_is_dead_when_no_request_runs_any_more() -> None:
    engine = toy_engine(max_num_seqs=1)
    runner = toy_runner(engine)
    for number in range(20):
        runner.poisoned.add(str(number))
        engine.add_request(request(str(number), max_tokens=2))
    with pytest.raises(EngineDeadError):
        run_to_end(engine)
    assert engine.load().num_finished >= 15
    for name in list(engine._states):
        engine.abort(name)


# What an observer sees -----------------------------------------------------------------------


class Recorder:
    def __init__(self) -> None:
        self.steps: list[StepStats] = []
        self.finished: list[RequestStats] = []

    def record_step(self, stats: StepStats) -> None:
        self.steps.append(stats)

    def record_finished(self, stats: RequestStats) -> None:
        self.finished.append(stats)


def test_stats_tell_every_token_and_every_ending() -> None:
    recorder = Recorder()
    engine = toy_engine(stats=recorder)
    engine.add_request(request("a", max_tokens=4))
    engine.add_request(request("b", max_tokens=2))
    engine.add_request(request("c", max_tokens=9))
    engine.step()
    engine.abort("c")
    run_to_end(engine)
    assert sum(len(step.first_token_s) for step in recorder.steps) == 3
    assert sum(len(step.inter_token_s) for step in recorder.steps) == 3 + 1
    assert [stats.finish_reasons for stats in recorder.finished] == [
        (FinishReason.CANCELLED,),
        (FinishReason.LENGTH,),
        (FinishReason.LENGTH,),
    ]
    assert recorder.steps[-1].load.num_running == 0
    assert sum(step.num_batched_tokens for step in recorder.steps) == 3 * 3 + 3 + 1
    assert [step.num_sequences for step in recorder.steps] == [3, 2, 1, 1]
    assert {step.load.max_waiting for step in recorder.steps} == {engine.config.max_num_waiting}
    load = engine.load()
    assert load.num_finished == 3
    # Three tokens of each prompt; of "c" the one of the step before it was aborted.
    assert (load.num_prompt_tokens, load.num_output_tokens) == (9, 4 + 2 + 1)


def test_request_aborted_before_its_first_step_is_never_computed() -> None:
    engine = toy_engine()
    engine.add_request(request("a", list(range(20)), max_tokens=2))
    engine.abort("a")
    run_one(engine, request("b", [1], max_tokens=1))
    assert toy_runner(engine).num_computed_tokens == 1
