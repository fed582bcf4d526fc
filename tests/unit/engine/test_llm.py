"""The engine as a library, over a real trained model."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from services import engine as package
from services.engine import LLM, FinishReason, SamplingParams
from services.engine.errors import ConfigError, InvalidRequestError

GREEDY = SamplingParams(max_tokens=12, temperature=0.0)


@pytest.fixture
def llm(stories_model: Path) -> LLM:
    return LLM(
        stories_model, num_threads=1, max_num_seqs=4, max_num_waiting=1, kv_cache_bytes=4 << 20
    )


def test_prompts_come_back_whole_and_in_order(llm: LLM) -> None:
    texts = ["Once upon a time", "Lily and Tom", "One day, a big dog", "The sun"] * 3
    outputs = llm.generate(texts, GREEDY)  # more than the queue takes at once
    assert len(outputs) == len(texts)
    for text, output in zip(texts, outputs, strict=True):
        [alone] = llm.generate(text, GREEDY)
        assert output.outputs[0].text == alone.outputs[0].text
        assert output.finished
        assert output.num_output_tokens == 12


def test_text_is_the_decoded_tokens(llm: LLM) -> None:
    prompt = llm.tokenizer.encode("Once upon a time")
    [output] = llm.generate(prompt, GREEDY)
    whole = llm.tokenizer.decode(prompt + output.outputs[0].token_ids)
    assert whole == "Once upon a time" + output.outputs[0].text


def test_each_prompt_may_have_its_own_parameters(llm: LLM) -> None:
    params = [SamplingParams(max_tokens=count, seed=1) for count in (1, 2, 3)]
    outputs = llm.generate(["a", "b", "c"], params)
    assert [output.num_output_tokens for output in outputs] == [1, 2, 3]
    with pytest.raises(InvalidRequestError, match="params"):
        llm.generate(["a", "b"], params)


def test_one_bad_prompt_refuses_the_call_before_anything_runs(llm: LLM) -> None:
    with pytest.raises(InvalidRequestError):
        llm.generate([[1, 2], []], GREEDY)
    assert not llm.engine.has_unfinished()


def test_stop_string_ends_the_text_before_it(llm: LLM) -> None:
    params = SamplingParams(max_tokens=60, temperature=0.0, stop=("big, red",))
    [output] = llm.generate("Once upon a time", params)
    completion = output.outputs[0]
    assert completion.text.endswith("she saw a ")
    assert (completion.finish_reason, completion.stop_reason) == (FinishReason.STOP, "big, red")


def test_score_of_a_continuation_is_that_of_its_generation(llm: LLM) -> None:
    [output] = llm.generate([1], SamplingParams(max_tokens=20, temperature=0.0, logprobs=0))
    completion = output.outputs[0]
    [score] = llm.score([[1, *completion.token_ids]])
    assert score.num_scored_tokens == 20
    assert score.total_logprob == pytest.approx(completion.cumulative_logprob, abs=1e-3)
    assert score.perplexity == pytest.approx(math.exp(-score.total_logprob / 20))


def test_score_of_one_token_is_refused(llm: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="two tokens"):
        llm.score([[1]])


def test_chat_without_a_template_is_refused(llm: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="messages"):
        llm.chat([{"role": "user", "content": "Hello"}])


def test_unknown_setting_is_refused_by_name(stories_model: Path) -> None:
    with pytest.raises(ConfigError, match="max_num_sequences"):
        LLM(stories_model, max_num_sequences=4)


def test_every_exported_name_exists() -> None:
    assert sorted(package.__all__) == sorted(package._HOMES)
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense  # type: ignore[attr-defined]


def test_pure_parts_do_not_load_torch() -> None:
    code = (
        "import sys, services.engine.scheduler, services.engine.request;"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
