"""The runner with the real scheduler and a small random LLaMA: what a step computes and returns."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from services.engine.attention import get_backend, make_metadata
from services.engine.config import EngineConfig, ModelConfig
from services.engine.errors import ConfigError
from services.engine.kv_cache import KVCache
from services.engine.models.registry import build_decoder
from services.engine.request import Request, SamplingParams, Sequence
from services.engine.runner import ModelRunner
from services.engine.scheduler import Scheduler
from services.engine.step_result import StepResult
from services.engine.weights import LoadedModel

CONFIG = ModelConfig(
    family="llama",
    vocab_size=97,
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=96,
    max_position_embeddings=128,
    norm_eps=1e-5,
    activation="silu",
)
ENGINE = EngineConfig(
    attention_backend="reference",
    num_threads=1,
    block_size=4,
    kv_cache_bytes=1 << 20,
    max_num_seqs=8,
    max_num_batched_tokens=24,
)


class RandomWeights:
    """A `TensorSource` that makes up whatever tensor is asked for, the same in each run."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __contains__(self, name: str) -> bool:
        return True

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if len(shape) == 1:
            return torch.ones(shape)
        return torch.randn(shape, generator=self._generator) * shape[-1] ** -0.5

    def take_transposed(self, name: str, shape: tuple[int, int]) -> Tensor:
        return self.take(name, shape).T.contiguous()

    def take_fused(self, names: list[str], shapes: list[tuple[int, ...]]) -> Tensor:
        return torch.cat([self.take(n, s) for n, s in zip(names, shapes, strict=True)])

    def take_entry(self, name: str, index: int, shape: tuple[int, ...]) -> Tensor:
        return self.take(name, shape)[index]

    def skip_tied(self, name: str, twin: Tensor) -> None: ...

    def skip(self, names: Iterable[str]) -> None: ...


def random_model() -> LoadedModel:
    decoder = build_decoder(CONFIG, RandomWeights())
    return LoadedModel(decoder, CONFIG, Path(), "0", 0, torch.float32, torch.device("cpu"))


@dataclass
class Stepper:
    """The engine's loop at its barest: schedule, execute, append, advance."""

    engine: EngineConfig = ENGINE
    model: LoadedModel = field(default_factory=random_model)

    def __post_init__(self) -> None:
        self.runner = ModelRunner(self.model, self.engine)
        self.scheduler = Scheduler(self.engine, self.runner.num_blocks)
        self.seqs: list[Sequence] = []

    def add(self, prompt: list[int], params: SamplingParams) -> Sequence:
        request = Request(f"r{len(self.seqs)}", prompt, params)
        seq = Sequence(
            len(self.seqs), request, list(prompt), max_num_tokens=len(prompt) + params.max_tokens
        )
        self.seqs.append(seq)
        self.scheduler.add(seq)
        return seq

    def step(self) -> tuple[list[Sequence], StepResult]:
        """One step; returns the sequences that sampled, and the result."""
        out = self.scheduler.schedule(time.monotonic())
        sampling = [item.seq for item in out.scheduled if item.samples]
        result = self.runner.execute(out)
        assert len(result.samples) == len(sampling)
        self.scheduler.advance(out)
        for seq, sample in zip(sampling, result.samples, strict=True):
            seq.token_ids.append(sample.token_id)
            if seq.num_tokens == seq.max_num_tokens:
                self.scheduler.finish(seq)
                self.runner.release(seq)
        return sampling, result

    def run(self) -> None:
        while self.scheduler.has_work:
            self.step()
        self.scheduler.check_integrity()


def dense_logits(model: LoadedModel, token_ids: list[int]) -> Tensor:
    """float32 [len(token_ids), vocab_size]: the whole sequence in one step, in its own cache."""
    engine = EngineConfig(block_size=16, kv_cache_bytes=1 << 20)
    cache = KVCache(model.config, engine, model.dtype, model.device)
    tables = np.arange(-(-len(token_ids) // 16))[None]
    meta = make_metadata(np.array([0]), np.array([len(token_ids)]), tables, 16)
    hidden = model.decoder(torch.tensor(token_ids), cache, meta, get_backend("reference"))
    return model.decoder.compute_logits(hidden)


def prompts(count: int, longest: int = 60) -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [
        rng.integers(0, CONFIG.vocab_size, rng.integers(1, longest)).tolist() for _ in range(count)
    ]


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_greedy_decoding_in_a_mixed_batch_follows_the_dense_model(backend: str) -> None:
    stepper = Stepper(ENGINE.model_copy(update={"attention_backend": backend}))
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    for prompt in prompts(12):
        stepper.add(prompt, params)
    stepper.run()
    for seq in stepper.seqs:
        logits = dense_logits(stepper.model, seq.token_ids)
        assert seq.num_output_tokens == 12
        for p in range(seq.num_prompt_tokens - 1, seq.num_tokens - 1):
            chosen = logits[p, seq.token_ids[p + 1]]
            assert chosen >= logits[p].max() - 1e-4  # the best, or tied within rounding


def test_rows_are_given_back_when_sequences_end() -> None:
    stepper = Stepper()
    for prompt in prompts(20, longest=10):
        stepper.add(prompt, SamplingParams(temperature=0.0, max_tokens=3))
    stepper.run()
    state = stepper.runner._state
    assert state.num_rows_in_use == 0
    assert len(state._free_rows) == ENGINE.max_num_seqs


def test_more_rows_than_running_sequences_grow_the_batch_state() -> None:
    stepper = Stepper(ENGINE.model_copy(update={"max_num_seqs": 2}))
    for prompt in prompts(5, longest=10):
        stepper.add(prompt, SamplingParams(temperature=0.0, max_tokens=3))
    sampled = 0
    while stepper.scheduler.has_work:  # as if five were held: nothing is released
        stepper.runner.release = lambda seq: None
        sampled += len(stepper.step()[0])
    assert sampled == 15
    assert stepper.runner._state.num_rows_in_use == 5


def test_preempted_sequences_are_recomputed_to_the_same_tokens() -> None:
    params = SamplingParams(temperature=0.0, max_tokens=40)
    tight = ENGINE.model_copy(update={"kv_cache_bytes": 40 * 2048, "enable_prefix_caching": False})
    some = prompts(6, longest=50)
    crowded, alone = Stepper(tight), Stepper()
    for stepper in (crowded, alone):
        for prompt in some:
            stepper.add(prompt, params)
        stepper.run()
    assert crowded.scheduler.num_preemptions > 0
    assert [s.token_ids for s in crowded.seqs] == [s.token_ids for s in alone.seqs]


def test_prompt_logprobs_of_chunks_join_to_one_entry_per_prompt_token() -> None:
    stepper = Stepper()  # 24 tokens a step: the prompt takes three
    prompt = prompts(1)[0] * 3
    prompt = prompt[:55]
    seq = stepper.add(prompt, SamplingParams(temperature=0.0, max_tokens=2, prompt_logprobs=3))
    positions = []
    while stepper.scheduler.has_work:
        positions += stepper.step()[1].prompt_logprobs.get(seq.seq_id, [])
    assert len(positions) == len(prompt)
    assert positions[0].chosen is None
    expected = dense_logits(stepper.model, prompt).log_softmax(-1)
    for p, position in enumerate(positions[1:], start=1):
        assert position.chosen is not None
        assert position.chosen.token_id == prompt[p]
        assert position.chosen.logprob == pytest.approx(expected[p - 1, prompt[p]].item(), abs=1e-4)
        assert len(position.top) == 3
        assert position.top[0].logprob == pytest.approx(expected[p - 1].max().item(), abs=1e-4)


def test_prompt_logprobs_do_not_depend_on_the_size_of_sub_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run() -> list[float]:
        stepper = Stepper()
        prompt = prompts(1)[0][:20]
        seq = stepper.add(prompt, SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0))
        found = stepper.step()[1].prompt_logprobs[seq.seq_id]
        return [p.chosen.logprob for p in found if p.chosen]

    whole = run()
    monkeypatch.setattr("services.engine.runner._MAX_PROMPT_LOGITS", 3 * CONFIG.vocab_size)
    assert run() == pytest.approx(whole, abs=1e-5)


def test_a_request_for_several_completions_draws_them_all_from_its_first_logits() -> None:
    stepper = Stepper()
    seq = stepper.add(
        prompts(1)[0][:10], SamplingParams(temperature=1.0, max_tokens=2, n=4, seed=5)
    )
    other = stepper.add(prompts(2)[1][:9], SamplingParams(temperature=0.0, max_tokens=2))
    sampling, result = stepper.step()
    assert sampling == [seq, other]
    drawn = result.fork_samples[seq.seq_id]
    assert len(drawn) == 4
    assert drawn[0] == result.samples[0]
    assert other.seq_id not in result.fork_samples
    assert stepper.step()[1].fork_samples == {}  # only the first token forks


def test_beam_candidates_are_the_best_of_the_models_distribution() -> None:
    stepper = Stepper()
    prompt = prompts(1)[0][:10]
    seq = stepper.add(prompt, SamplingParams(temperature=0.0, max_tokens=2, beam_width=3))
    _, result = stepper.step()
    candidates = result.candidates[seq.seq_id]
    best = dense_logits(stepper.model, prompt)[-1].log_softmax(-1).topk(6)
    assert [token_id for token_id, _ in candidates] == best.indices.tolist()
    assert [lp for _, lp in candidates] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_an_empty_step_still_applies_block_copies() -> None:
    stepper = Stepper()
    out = stepper.scheduler.schedule(0.0)
    stepper.runner.cache.layers[1].k[3] = 7.0
    out.block_copies.append((3, 5))
    assert stepper.runner.execute(out).samples == []
    assert (stepper.runner.cache.layers[1].k[5] == 7.0).all()


def test_a_cache_too_small_for_the_context_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="kv_cache_bytes"):
        ModelRunner(random_model(), ENGINE.model_copy(update={"kv_cache_bytes": 1 << 14}))
