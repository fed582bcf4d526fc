"""Log-probabilities of tokens and of the alternatives to them. Knows nothing of sampling.

They are those of the model itself: the log-softmax of its raw logits, before any penalty, bias,
temperature or filter, so that they mean the same whatever the sampling parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from services.engine.request import PositionLogprobs, TokenLogprob

__all__ = ["TokenTexts", "position_logprobs", "token_logprobs", "with_texts"]


class TokenTexts(Protocol):
    """What `with_texts` needs of a tokenizer."""

    def token_text(self, token_id: int) -> str: ...

    def token_bytes(self, token_id: int) -> bytes: ...


def token_logprobs(logits: Tensor, token_ids: Tensor) -> Tensor:
    """float32 [N]: log-probabilities of `token_ids` [N] under raw `logits` (float32 [N, vocab])."""
    chosen = logits.gather(1, token_ids[:, None]).squeeze(1)
    return chosen - torch.logsumexp(logits, dim=-1)


def position_logprobs(
    logits: Tensor, token_ids: Tensor, num_top: Sequence[int]
) -> list[PositionLogprobs]:
    """One `PositionLogprobs` per row: the row's token and its `num_top` most likely ones.

    `logits`: raw, float32 [N, vocab]; `token_ids`: int64 [N], the token that stands at each
    position. For a prompt, row i holds the logits after token i and `token_ids[i]` is token
    i + 1; the first token of a prompt has none. A long prompt should be passed in slices: this
    allocates a few times the size of `logits`.

    Rank 1 is the most likely; tokens with equal logits share the best rank of them. The token's
    own text is left empty: see `with_texts`.
    """
    normaliser = torch.logsumexp(logits, dim=-1, keepdim=True)  # [N, 1]
    chosen = logits.gather(1, token_ids[:, None])  # [N, 1]
    ranks = (logits > chosen).sum(-1) + 1
    most = max(num_top, default=0)
    top = torch.topk(logits, min(most, logits.shape[1]), dim=-1)
    top_logprobs = (top.values - normaliser).tolist()
    top_ids = top.indices.tolist()
    chosen_rows = zip(
        token_ids.tolist(), (chosen - normaliser).squeeze(1).tolist(), ranks.tolist(), strict=True
    )
    positions = []
    for row, (token_id, logprob, rank) in enumerate(chosen_rows):
        best = zip(top_ids[row][: num_top[row]], top_logprobs[row][: num_top[row]], strict=True)
        positions.append(
            PositionLogprobs(
                chosen=TokenLogprob(token_id, logprob, rank),
                top=tuple(TokenLogprob(t, lp, i) for i, (t, lp) in enumerate(best, start=1)),
            )
        )
    return positions


def with_texts(position: PositionLogprobs, tokenizer: TokenTexts) -> PositionLogprobs:
    """The same position with each token's text and bytes filled in."""

    def fill(entry: TokenLogprob) -> TokenLogprob:
        return replace(
            entry,
            token=tokenizer.token_text(entry.token_id),
            token_bytes=tokenizer.token_bytes(entry.token_id),
        )

    return PositionLogprobs(
        chosen=None if position.chosen is None else fill(position.chosen),
        top=tuple(fill(entry) for entry in position.top),
    )
