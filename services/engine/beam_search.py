"""Beam search for one request: which continuations live on, which are finished, when to stop.

Works on candidates and scores alone; forking sequences and freeing their blocks is the engine's.
It decides as Hugging Face transformers does with `early_stopping=False`:

1. the candidates of all beams are ranked by cumulative log-probability;
2. of the best `beam_width`, those that end are finished, with the score
   cumulative_logprob / output_length ** length_penalty; the best `beam_width` of these are kept;
3. the best `beam_width` that do not end are the beams of the next step;
4. the search is over when `beam_width` are finished and the best beam, scored at its present
   length, is not better than the worst of them; or when every beam has reached its last token.

Log-probabilities are those after penalties and constraints.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Set
from dataclasses import dataclass

from services.engine.request import FinishReason, SamplingParams, Sequence

__all__ = ["BeamSearch", "Continuation", "Hypothesis"]


@dataclass(frozen=True, slots=True)
class Continuation:
    """A beam of the next step: `parent` followed by `token_id`."""

    parent: Sequence
    token_id: int
    cumulative_logprob: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished beam."""

    token_ids: list[int]  # of the output, with the token that ended it
    score: float
    cumulative_logprob: float
    finish_reason: FinishReason
    stop_token_id: int | None


class BeamSearch:
    """The state of one search.

    Beams need not compute in the same step: each reports its candidates when it has them, and once
    all have, `select` says how the search goes on.
    """

    def __init__(self, params: SamplingParams, root: Sequence, ending_token_ids: Set[int]) -> None:
        self._width = params.beam_width
        self._length_penalty = params.length_penalty
        self._ending_token_ids = ending_token_ids
        self._scores: dict[Sequence, float] = {root: 0.0}  # of the live beams, best first
        self._candidates: dict[Sequence, list[tuple[int, float]]] = {}
        self._finished: list[Hypothesis] = []  # best first, at most `width`

    @property
    def beams(self) -> list[Sequence]:
        """The live beams, best first."""
        return list(self._scores)

    @property
    def finished(self) -> list[Hypothesis]:
        """The best finished beams so far, best first."""
        return self._finished

    def report(self, beam: Sequence, candidates: list[tuple[int, float]]) -> bool:
        """Takes a beam's (token_id, logprob) candidates; says whether all beams have reported."""
        self._candidates[beam] = candidates
        return len(self._candidates) == len(self._scores)

    def select(self) -> list[Continuation]:
        """The beams of the next step, best first. Empty: the search is over."""
        ranked = self._rank()
        self._candidates.clear()
        going_on: list[Continuation] = []
        for rank, continuation in enumerate(ranked):
            reason = self._ends(continuation)
            if reason is None:
                if len(going_on) < self._width:
                    going_on.append(continuation)
            elif rank < self._width:
                self._finish(continuation, reason)
        if going_on and self._improvable(going_on[0]):
            return going_on
        return []

    def replace_beams(self, beams: list[tuple[Sequence, float]]) -> None:
        """Says which sequences carry the selected continuations, with their log-probabilities."""
        self._scores = dict(beams)

    def _rank(self) -> list[Continuation]:
        everything = [
            Continuation(beam, token_id, score + logprob)
            for beam, score in self._scores.items()
            for token_id, logprob in self._candidates[beam]
        ]
        # As many as surely contain `width` that do not end.
        count = (1 + max(1, len(self._ending_token_ids))) * self._width
        return heapq.nlargest(count, everything, key=lambda c: c.cumulative_logprob)

    def _ends(self, continuation: Continuation) -> FinishReason | None:
        if continuation.token_id in self._ending_token_ids:
            return FinishReason.STOP
        if continuation.parent.num_tokens + 1 >= continuation.parent.max_num_tokens:
            return FinishReason.LENGTH
        return None

    def _finish(self, continuation: Continuation, reason: FinishReason) -> None:
        parent, token_id = continuation.parent, continuation.token_id
        hypothesis = Hypothesis(
            token_ids=[*parent.token_ids[parent.num_prompt_tokens :], token_id],
            score=self._score(continuation),
            cumulative_logprob=continuation.cumulative_logprob,
            finish_reason=reason,
            stop_token_id=token_id if reason is FinishReason.STOP else None,
        )
        self._finished.append(hypothesis)
        self._finished.sort(key=lambda h: -h.score)
        del self._finished[self._width :]

    def _score(self, continuation: Continuation) -> float:
        length = continuation.parent.num_output_tokens + 1
        return continuation.cumulative_logprob / math.pow(length, self._length_penalty)

    def _improvable(self, best: Continuation) -> bool:
        return len(self._finished) < self._width or self._score(best) > self._finished[-1].score
