"""Score against Hugging Face transformers on the same checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from orrery.v1 import generation_pb2 as pb
from tests.contract.served import Served, chat, text, tokens

PASSAGE = "The observatory of the northern coast was founded by a keeper of lamps."
Scorer = Callable[[Sequence[int], bool], list[float]]


@pytest.fixture(scope="module")
def reference() -> Scorer:
    """Log-probability of each token after the first, by transformers."""
    from transformers import AutoModelForCausalLM

    folder = Path(__file__).resolve().parents[2] / "models" / "orrery-llama"
    models = {
        exact: AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        for exact, dtype in ((True, torch.float32), (False, torch.bfloat16))
    }

    def score(ids: Sequence[int], exact: bool) -> list[float]:
        input_ids = torch.tensor([ids])
        with torch.no_grad():
            logits = models[exact](input_ids).logits[0].float()
        logprobs = torch.log_softmax(logits[:-1], dim=-1)
        return logprobs.gather(1, input_ids[0, 1:, None])[:, 0].tolist()

    return score


async def _ids(served: Served, value: str, special: bool = True) -> list[int]:
    response = await served.stub.Tokenize(
        pb.TokenizeRequest(prompt=text(value), add_special_tokens=special),
        metadata=served.metadata,
    )
    return list(response.token_ids)


async def test_score_equals_transformers(served: Served, reference: Scorer) -> None:
    ids = await _ids(served, PASSAGE)
    response = await served.stub.Score(
        pb.ScoreRequest(target=text(PASSAGE), top_logprobs=2), metadata=served.metadata
    )
    expected = reference(ids, served.exact)
    got = [entry.chosen.logprob for entry in response.tokens if entry.HasField("chosen")]
    tolerance = 1e-3 if served.exact else 0.25  # nats; bfloat16 has three digits
    assert got == pytest.approx(expected, abs=tolerance)
    assert [entry.chosen.token_id for entry in response.tokens][1:] == ids[1:]
    assert response.num_scored_tokens == len(ids) - 1
    assert response.total_logprob == pytest.approx(sum(got), rel=1e-5)
    assert response.perplexity == pytest.approx(math.exp(-sum(got) / len(got)), rel=1e-4)
    assert all(len(entry.top) == 2 for entry in response.tokens[1:])
    assert response.usage.prompt_tokens == len(ids)
    assert response.usage.completion_tokens == 0
    assert response.timing.total_ns > 0


async def test_score_with_context_scores_the_target_only(served: Served, reference: Scorer) -> None:
    context, target = "The observatory of the northern coast", " was founded by a keeper."
    context_ids = await _ids(served, context)
    target_ids = await _ids(served, target, special=False)
    response = await served.stub.Score(
        pb.ScoreRequest(context=text(context), target=text(target)), metadata=served.metadata
    )
    expected = reference([*context_ids, *target_ids], served.exact)[-len(target_ids) :]
    got = [entry.chosen.logprob for entry in response.tokens]
    assert got == pytest.approx(expected, abs=1e-3 if served.exact else 0.25)
    assert response.num_scored_tokens == len(target_ids)


async def test_score_takes_chat_as_context_and_token_ids_as_target(served: Served) -> None:
    response = await served.stub.Score(
        pb.ScoreRequest(context=chat("Hello"), target=tokens([5, 6, 7])), metadata=served.metadata
    )
    assert [entry.chosen.token_id for entry in response.tokens] == [5, 6, 7]


async def test_score_after_a_generation_of_the_same_text_is_not_taken_from_the_cache(
    served: Served, reference: Scorer
) -> None:
    ids = (await _ids(served, PASSAGE)) * 3
    first, second = [
        await served.stub.Score(pb.ScoreRequest(target=tokens(ids)), metadata=served.metadata)
        for _ in range(2)
    ]
    assert second.num_scored_tokens == first.num_scored_tokens == len(ids) - 1
    assert second.total_logprob == pytest.approx(first.total_logprob, rel=1e-4)
