"""Ours = Hugging Face transformers, token for token and logit for logit, in float32.

Random weights of every family and variant, and a real trained LLaMA. Prompts of one length go
through transformers together, so that it needs no padding; through the engine all at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from services.engine.attention import get_backend, make_metadata
from services.engine.config import EngineConfig
from services.engine.engine import LLMEngine
from services.engine.kv_cache import KVCache
from services.engine.request import Request, SamplingParams
from services.engine.weights import LoadedModel, load_model
from tests.fakes.random_models import RANDOM_MODELS, VOCAB_SIZE, random_model

NUM_NEW_TOKENS = 64
PROMPT_LENGTHS = (20, 29, 37, 45)
PROMPTS_PER_LENGTH = 5  # 20 prompts in all
# A choice between two tokens whose logits are closer than this is decided by the order in which
# sums are rounded, not by the model. Prompts that lead to such a tie are left out.
DECISIVE_MARGIN = 1e-4
BACKENDS = ("reference", "cpu")


@dataclass(frozen=True)
class Case:
    """A model in both forms, prompts, and how transformers continues them."""

    model: LoadedModel
    theirs: transformers.PreTrainedModel
    prompts: list[list[int]]
    continuations: list[list[int]]  # [NUM_NEW_TOKENS] each
    logits: Tensor  # [num_prompts, NUM_NEW_TOKENS, vocab]: what each new token was chosen from


@pytest.fixture(scope="module", params=RANDOM_MODELS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("model")
    theirs = random_model(request.param)
    theirs.save_pretrained(folder)
    prompts, continuations, logits = [], [], []
    for length in PROMPT_LENGTHS:
        rng = torch.Generator().manual_seed(length)
        batch = torch.randint(VOCAB_SIZE, (PROMPTS_PER_LENGTH + 4, length), generator=rng)
        sequences, steps = greedy_by_transformers(theirs, batch, NUM_NEW_TOKENS)
        best, second = steps.topk(2, dim=-1).values.unbind(-1)
        decisive = (best - second).amin(dim=1) > DECISIVE_MARGIN
        chosen = decisive.nonzero().flatten()[:PROMPTS_PER_LENGTH]
        assert len(chosen) == PROMPTS_PER_LENGTH
        prompts += batch[chosen].tolist()
        continuations += sequences[chosen, length:].tolist()
        logits.append(steps[chosen])
    return Case(load_model(folder), theirs, prompts, continuations, torch.cat(logits))


def greedy_by_transformers(
    model: transformers.PreTrainedModel, prompts: Tensor, num_new_tokens: int
) -> tuple[Tensor, Tensor]:
    """prompts [N, length] -> sequences [N, length + new], logits [N, new, vocab]"""
    out = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=num_new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences, torch.stack(out.logits, dim=1)


def logits_of(model: LoadedModel, sequences: list[list[int]], backend: str) -> list[Tensor]:
    """The logits of every position of the sequences, [length, vocab] each, in one ragged step."""
    engine = EngineConfig(block_size=16, kv_cache_bytes=64 << 20)
    cache = KVCache(model.config, engine, model.dtype, "cpu")
    lengths = [len(sequence) for sequence in sequences]
    max_blocks = -(-max(lengths) // engine.block_size)
    tables = np.arange(len(sequences) * max_blocks).reshape(len(sequences), max_blocks)
    meta = make_metadata(
        np.zeros(len(lengths), dtype=np.int64), np.array(lengths), tables, engine.block_size
    )
    with torch.inference_mode():
        token_ids = torch.tensor([token for sequence in sequences for token in sequence])
        hidden = model.decoder(token_ids, cache, meta, get_backend(backend))
        return list(torch.split(model.decoder.compute_logits(hidden), lengths))


def greedy_by_engine(
    model: LoadedModel, prompts: list[list[int]], num_new_tokens: int, backend: str
) -> list[list[int]]:
    """The new tokens of each prompt, all of them served at once in steps of at most 96 tokens."""
    settings = {"attention_backend": backend, "kv_cache_bytes": 64 << 20}
    config = EngineConfig(num_threads=1, max_num_batched_tokens=96, **settings)
    engine = LLMEngine(model, None, config)
    params = SamplingParams(max_tokens=num_new_tokens, temperature=0.0, ignore_eos=True)
    for i, prompt in enumerate(prompts):
        engine.add_request(Request(str(i), prompt, params))
    tokens: list[list[int]] = [[] for _ in prompts]
    while engine.has_unfinished():
        for output in engine.step():
            assert output.error is None
            tokens[int(output.request_id)] += output.outputs[0].token_ids
    engine.check_integrity()
    return tokens


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_equal_transformers_within_1e_4(case: Case, backend: str) -> None:
    sequences = [
        prompt + continuation[:-1]
        for prompt, continuation in zip(case.prompts, case.continuations, strict=True)
    ]
    ours = [logits[-NUM_NEW_TOKENS:] for logits in logits_of(case.model, sequences, backend)]
    torch.testing.assert_close(torch.stack(ours), case.logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_greedy_tokens_equal_transformers(case: Case, backend: str) -> None:
    assert greedy_by_engine(case.model, case.prompts, NUM_NEW_TOKENS, backend) == case.continuations


@pytest.mark.parametrize("backend", BACKENDS)
def test_real_model_tells_its_story_as_transformers_does(stories_model: Path, backend: str) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(stories_model)
    sequence, _ = greedy_by_transformers(theirs, torch.tensor([[1]]), 200)
    (ours,) = greedy_by_engine(load_model(stories_model), [[1]], 200, backend)
    assert ours == sequence[0, 1:].tolist()
    tokenizer = transformers.AutoTokenizer.from_pretrained(stories_model)
    assert tokenizer.decode(ours).startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the "
        "park. One day, she saw a big, red ball."
    )


@pytest.mark.parametrize("name", ["gpt2", "llama-gqa", "qwen3", "mixtral", "qwen2-moe"])
def test_bfloat16_is_as_near_to_float32_as_that_of_transformers(name: str, tmp_path: Path) -> None:
    theirs = random_model(name)
    theirs.save_pretrained(tmp_path)
    # Short prompts in many numbers: an expert chosen otherwise by rounding is then an outlier.
    prompts = torch.randint(VOCAB_SIZE, (64, 6), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact = theirs(prompts).logits
        their_error = (theirs.bfloat16()(prompts).logits.float() - exact).abs().median()
    ours = logits_of(load_model(tmp_path, "bfloat16"), prompts.tolist(), "reference")
    our_error = (torch.stack(ours) - exact).abs().median()
    assert our_error < 1.2 * their_error


def test_dynamic_rope_of_a_long_prompt_equals_transformers_fed_token_by_token(
    tmp_path: Path,
) -> None:
    theirs = random_model("llama-rope-dynamic")
    theirs.save_pretrained(tmp_path)
    prompt = torch.randint(VOCAB_SIZE, (1, 90), generator=torch.Generator().manual_seed(0))
    assert prompt.shape[1] > theirs.config.max_position_embeddings
    cache = transformers.DynamicCache(config=theirs.config)
    with torch.inference_mode():
        steps = [
            theirs(token[:, None], past_key_values=cache).logits[0, 0] for token in prompt.unbind(1)
        ]
    (ours,) = logits_of(load_model(tmp_path), prompt.tolist(), "reference")
    torch.testing.assert_close(ours, torch.stack(steps), atol=1e-4, rtol=0)
