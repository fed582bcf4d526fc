"""What the sampler's tests share: rows to sample, and Hugging Face's filters as the reference."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessor,
    MinPLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from services.engine.request import Request, SamplingParams, Sequence
from services.engine.sampler import SampleRow

EOS = 2


def row(
    params: SamplingParams,
    prompt: list[int] | None = None,
    output: list[int] | None = None,
    *,
    sample_index: int = 0,
    request_id: str = "r",
) -> SampleRow:
    """A sequence with this prompt and output so far, to be sampled next."""
    prompt = prompt or [1, 3]
    request = Request(request_id, prompt, params, arrival_s=0.0)
    return SampleRow(Sequence(0, request, prompt + (output or []), sample_index), sample_index)


def random_logits(num_rows: int, vocab_size: int, seed: int, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, vocab_size, generator=generator) * scale


def reference_warpers(params: SamplingParams) -> list[LogitsProcessor]:
    """Hugging Face's filters for one row, in the order in which `generate` applies them."""
    warpers: list[LogitsProcessor] = []
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        warpers.append(TopPLogitsWarper(params.top_p))
    if params.min_p > 0.0:
        warpers.append(MinPLogitsWarper(params.min_p))
    if params.typical_p < 1.0:
        warpers.append(TypicalLogitsWarper(params.typical_p))
    return warpers


def reference_filter(logits: Tensor, params: SamplingParams) -> Tensor:
    """Filtered probabilities of one row [vocab], by Hugging Face's warpers in float64."""
    scores = logits.double()[None] / params.temperature
    for warper in reference_warpers(params):
        scores = warper(torch.zeros(1, 1, dtype=torch.int64), scores)
    return scores.softmax(-1)[0]
