"""Repetition, presence and frequency penalties. Knows nothing of how a token is then chosen.

State is kept for the rows that use a penalty only, and grows by the tokens of each step:

    history [R, capacity]   the row's tokens, prompt and output, padded with its first token
    counts  [R, vocab]      how often each token stands in the row's output

A step reads and writes the logits at `history` alone, not over the vocabulary. Duplicates in
`history` are harmless: each computes its new value from the old one, so all write the same.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import torch
from torch import Tensor

from services.engine.request import SamplingParams, Sequence

__all__ = ["Penalties", "uses_penalties"]

_CAPACITY_STEP = 128  # columns of `history` that are added when it is full


def uses_penalties(params: SamplingParams) -> bool:
    return (
        params.repetition_penalty != 1.0
        or params.presence_penalty != 0.0
        or params.frequency_penalty != 0.0
    )


class Penalties:
    """The penalties of one batch of rows.

    Repetition (Keskar et al., "CTRL", 2019, section 4.1, in the form of Hugging Face's
    `RepetitionPenaltyLogitsProcessor`): the logit of a token seen in the prompt or the output is
    divided by the penalty if positive, multiplied if negative. Presence and frequency (OpenAI's):
    the logit loses `presence` if the token stands in the output, and `frequency` per occurrence.

    A sequence's `token_ids` may only grow while it stays in a batch; a fork is a new `Sequence`.
    """

    def __init__(
        self, sequences: SequenceOf[Sequence], vocab_size: int, device: torch.device
    ) -> None:
        using = [(i, s) for i, s in enumerate(sequences) if uses_penalties(s.request.params)]
        self._sequences = [s for _, s in using]
        self._rows = torch.tensor([i for i, _ in using], dtype=torch.int64, device=device)
        self._vocab_size = vocab_size
        self._device = device
        params = [s.request.params for s in self._sequences]
        self._repetition = self._column([p.repetition_penalty for p in params])  # [R, 1]
        self._presence = self._column([p.presence_penalty for p in params])
        self._frequency = self._column([p.frequency_penalty for p in params])
        if self._sequences:
            self._rebuild()

    @property
    def empty(self) -> bool:
        return not self._sequences

    def apply_(self, logits: Tensor) -> None:
        """Edit `logits` [N, vocab] in place, after taking in the tokens since the last step."""
        self._update()
        width = max(self._lengths)
        history = self._history[:, :width]  # [R, width]
        rows = self._rows[:, None]  # [R, 1]
        values = logits[rows, history]
        counts = self._counts.gather(1, history)
        values = torch.where(values > 0, values / self._repetition, values * self._repetition)
        values -= self._frequency * counts + self._presence * (counts > 0)
        logits[rows, history] = values

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]

    def _rebuild(self) -> None:
        self._lengths = [0] * len(self._sequences)
        self._counts = torch.zeros(len(self._sequences), self._vocab_size, device=self._device)
        first = torch.tensor([s.token_ids[0] for s in self._sequences], device=self._device)
        self._history = first[:, None].repeat(1, _CAPACITY_STEP)
        self._update()

    def _update(self) -> None:
        """Append the tokens that the sequences gained since the last call."""
        if any(s.num_tokens < n for s, n in zip(self._sequences, self._lengths, strict=True)):
            self._rebuild()  # a sequence was rolled back
            return
        rows: list[int] = []
        columns: list[int] = []
        tokens: list[int] = []
        is_output: list[float] = []
        for row, (seq, done) in enumerate(zip(self._sequences, self._lengths, strict=True)):
            rows += [row] * (seq.num_tokens - done)
            columns += range(done, seq.num_tokens)
            tokens += seq.token_ids[done:]
            is_output += [float(i >= seq.num_prompt_tokens) for i in range(done, seq.num_tokens)]
            self._lengths[row] = seq.num_tokens
        if not rows:
            return
        self._reserve(max(self._lengths))
        index = torch.tensor([rows, columns, tokens], dtype=torch.int64, device=self._device)
        self._history[index[0], index[1]] = index[2]
        weights = torch.tensor(is_output, device=self._device)
        self._counts.index_put_((index[0], index[2]), weights, accumulate=True)

    def _reserve(self, length: int) -> None:
        missing = length - self._history.shape[1]
        if missing > 0:
            more = -(-missing // _CAPACITY_STEP) * _CAPACITY_STEP
            self._history = torch.cat([self._history, self._history[:, :1].repeat(1, more)], 1)
