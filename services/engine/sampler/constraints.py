"""Logit bias and forbidden tokens: what a request adds to, or takes out of, the vocabulary.

Knows nothing of penalties or of how a token is then chosen. Everything is kept as flat
(row, token) indices, so that a step touches only the entries that some request named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.engine.errors import InvalidRequestError
from services.engine.request import SamplingParams

__all__ = ["Constraints", "check_token_constraints", "ending_token_ids"]

_NEG_INF = float("-inf")


def ending_token_ids(params: SamplingParams, eos_token_ids: Sequence[int]) -> set[int]:
    """The tokens that end a completion: end-of-sequence, unless ignored, and the stop tokens."""
    return set(params.stop_token_ids) | (set() if params.ignore_eos else set(eos_token_ids))


def check_token_constraints(
    params: SamplingParams, vocab_size: int, eos_token_ids: Sequence[int]
) -> None:
    """Check what depends on the model: every token id exists, and some token can be sampled.

    Raises `InvalidRequestError` naming the field.
    """
    for name in ("logit_bias", "allowed_token_ids", "banned_token_ids", "stop_token_ids"):
        for token_id in getattr(params, name):
            if not 0 <= token_id < vocab_size:
                raise InvalidRequestError(
                    name, f"expected token ids from 0 to {vocab_size - 1}, got {token_id}"
                )
    forbidden = set(params.banned_token_ids)
    if params.min_tokens > 0:
        forbidden |= ending_token_ids(params, eos_token_ids)
    allowed = set(params.allowed_token_ids) or range(vocab_size)
    if len(allowed) <= len(forbidden) and not set(allowed) - forbidden:
        name = "allowed_token_ids" if params.allowed_token_ids else "banned_token_ids"
        raise InvalidRequestError(
            name, "expected at least one token that may be sampled; all are banned"
        )


class Constraints:
    """The constraints of one batch of rows, applied in this order:

    1. `logit_bias` is added;
    2. all but `allowed_token_ids` become -inf;
    3. `banned_token_ids` become -inf;
    4. while a row has fewer than `min_tokens` output tokens, the tokens that would end it do too.
    """

    def __init__(
        self, params: Sequence[SamplingParams], eos_token_ids: Sequence[int], device: torch.device
    ) -> None:
        rows = list(enumerate(params))
        self._bias = _Entries(((i, t) for i, p in rows for t in p.logit_bias), device)
        self._bias_values = torch.tensor(
            [bias for p in params for bias in p.logit_bias.values()], device=device
        )
        allowing = [i for i, p in rows if p.allowed_token_ids]
        self._allowing_rows = torch.tensor(allowing, dtype=torch.int64, device=device)
        self._allowed = _Entries(((i, t) for i, p in rows for t in p.allowed_token_ids), device)
        self._banned = _Entries(((i, t) for i, p in rows for t in p.banned_token_ids), device)
        self._ending = _Entries(
            (
                (i, t)
                for i, p in rows
                if p.min_tokens > 0
                for t in sorted(ending_token_ids(p, eos_token_ids))
            ),
            device,
        )
        self._min_tokens = np.array([p.min_tokens for p in params], dtype=np.int64)

    @property
    def empty(self) -> bool:
        return not (len(self._bias) or len(self._allowed) or len(self._banned) or len(self._ending))

    def apply_(self, logits: Tensor, num_output_tokens: NDArray[np.int64]) -> None:
        """Edit `logits` [N, vocab] in place. `num_output_tokens` [N]: before this step."""
        if len(self._bias):
            logits.index_put_(self._bias.index, self._bias_values, accumulate=True)
        if len(self._allowed):
            kept = logits[self._allowed.index]
            logits.index_fill_(0, self._allowing_rows, _NEG_INF)
            logits[self._allowed.index] = kept
        if len(self._banned):
            logits[self._banned.index] = _NEG_INF
        if len(self._ending):
            early = (num_output_tokens < self._min_tokens)[self._ending.rows_on_host]
            if early.any():
                mask = torch.from_numpy(early).to(logits.device)
                rows, tokens = self._ending.index
                logits[rows[mask], tokens[mask]] = _NEG_INF


class _Entries:
    """(row, token) pairs as the two index tensors that select them in [N, vocab]."""

    def __init__(self, pairs: Iterable[tuple[int, int]], device: torch.device) -> None:
        flat = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
        self.rows_on_host: NDArray[np.int64] = flat[:, 0].copy()
        self.index = (
            torch.from_numpy(self.rows_on_host).to(device),
            torch.from_numpy(flat[:, 1].copy()).to(device),
        )

    def __len__(self) -> int:
        return len(self.rows_on_host)
