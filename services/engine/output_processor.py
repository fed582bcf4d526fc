"""From sampled tokens to what a caller sees: text, stop conditions, log-probabilities, timing.

    RequestState ──┬── Completion 0   its sequence, its detokenizer, its news since the last output
                   ├── Completion 1
                   └── ...

Knows nothing of scheduling or of blocks: the engine tells it the tokens and asks for the news.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from services.engine.beam_search import BeamSearch, Hypothesis
from services.engine.detokenizer import IncrementalDetokenizer
from services.engine.logprobs import with_texts
from services.engine.request import (
    CompletionOutput,
    FinishReason,
    PositionLogprobs,
    Request,
    RequestOutput,
    RequestTiming,
    Sequence,
)
from services.engine.stats import EngineLoad, RequestStats, StepStats
from services.engine.step_result import SampledToken
from services.engine.tokenizer import Tokenizer

__all__ = ["Completion", "RequestState", "StepNews"]


@dataclass(eq=False, slots=True)
class Completion:
    """One line of output of a request."""

    seq: Sequence
    ending_token_ids: frozenset[int]
    tokenizer: Tokenizer | None
    detokenizer: IncrementalDetokenizer | None
    news: CompletionOutput
    finish_reason: FinishReason | None = None
    cumulative_logprob: float | None = None
    last_token_s: float = 0.0

    def append(self, sampled: SampledToken) -> FinishReason | None:
        """Takes the next token; says why the completion ends with it, if it does.

        Of several reasons STOP wins: the text is whole.
        """
        token_id = sampled.token_id
        self.seq.token_ids.append(token_id)
        self.news.token_ids.append(token_id)
        if sampled.logprob is not None:
            self._add_logprobs(sampled.logprob)
        if sampled.cumulative is not None:
            self.cumulative_logprob = (self.cumulative_logprob or 0.0) + sampled.cumulative
        if token_id in self.ending_token_ids:
            if self.seq.request.params.include_stop_in_output:
                self._add_text(token_id)
            self.news.stop_reason = token_id
            return FinishReason.STOP
        if self._add_text(token_id):
            return FinishReason.STOP
        if self.seq.num_tokens >= self.seq.max_num_tokens:
            return FinishReason.LENGTH
        return None

    def end(self, reason: FinishReason) -> None:
        """Ends the completion: what text was held back is released, unless a stop string cut it."""
        self.finish_reason = self.news.finish_reason = reason
        self.news.cumulative_logprob = self.cumulative_logprob
        cut = isinstance(self.news.stop_reason, str)
        if self.detokenizer is not None and not cut and reason is not FinishReason.ERROR:
            self.news.text += self.detokenizer.flush()

    def take_news(self) -> CompletionOutput:
        news = self.news
        self.news = CompletionOutput(index=news.index)
        return news

    def _add_text(self, token_id: int) -> bool:
        """Returns whether a stop string was completed."""
        if self.detokenizer is None:
            return False
        delta = self.detokenizer.push(token_id)
        self.news.text += delta.text
        if delta.stop_string is None:
            return False
        self.news.stop_reason = delta.stop_string
        return True

    def _add_logprobs(self, position: PositionLogprobs) -> None:
        if self.tokenizer is not None:
            position = with_texts(position, self.tokenizer)
        if self.news.logprobs is None:
            self.news.logprobs = []
        self.news.logprobs.append(position)


@dataclass(eq=False, slots=True)
class RequestState:
    """A request from its acceptance to its last output."""

    request: Request
    tokenizer: Tokenizer | None
    ending_token_ids: frozenset[int]
    completions: list[Completion] = field(default_factory=list)
    search: BeamSearch | None = None
    prompt_logprobs: list[PositionLogprobs] = field(default_factory=list)
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    started_s: float | None = None  # first scheduled
    first_token_s: float | None = None
    told_prompt: bool = False
    error: Exception | None = None

    def add_completion(self, seq: Sequence) -> Completion:
        params = self.request.params
        detokenizer = None
        if self.tokenizer is not None and self.search is None:
            detokenizer = IncrementalDetokenizer(
                self.tokenizer, self.request.prompt_token_ids, params
            )
        completion = Completion(
            seq=seq,
            ending_token_ids=self.ending_token_ids,
            tokenizer=self.tokenizer,
            detokenizer=detokenizer,
            news=CompletionOutput(index=seq.index),
        )
        self.completions.append(completion)
        return completion

    @property
    def live_sequences(self) -> list[Sequence]:
        if self.search is not None:
            return self.search.beams
        return [completion.seq for completion in self.completions if not completion.finish_reason]

    @property
    def finished(self) -> bool:
        return all(completion.finish_reason is not None for completion in self.completions)

    def add_prompt_logprobs(self, start: int, chunk: list[PositionLogprobs]) -> None:
        """Takes the prompt positions that a chunk from token `start` on has decided."""
        first = start + 1 if start else 0  # a preempted prompt starts again: its entries replace
        if self.tokenizer is not None:
            chunk = [with_texts(position, self.tokenizer) for position in chunk]
        self.prompt_logprobs[first:] = chunk

    def honest(self, reason: FinishReason) -> FinishReason:
        """DEADLINE in place of LENGTH for a request that has outlived its deadline."""
        deadline = self.request.deadline_s
        if reason is FinishReason.LENGTH and deadline is not None and time.monotonic() >= deadline:
            return FinishReason.DEADLINE
        return reason

    def end(self, reason: FinishReason) -> None:
        """Ends what is not finished yet; a request that has not forked ends all of its `n`."""
        if self.search is not None:
            self.end_search(reason)
        for index in range(len(self.completions), self.request.params.n):
            self.add_completion(self._placeholder(index))
        for completion in self.completions:
            if completion.finish_reason is None:
                completion.end(reason)

    def end_search(self, cut_short: FinishReason | None = None) -> None:
        """Makes the best finished beams the request's completions.

        `cut_short`: why the search ends before it was over. Then there may be fewer finished beams
        than asked for; the missing completions are empty.
        """
        assert self.search is not None
        hypotheses = self.search.finished[: self.request.params.n]
        if cut_short is FinishReason.ERROR:
            hypotheses = []
        self.search = None
        self.completions.clear()
        for index in range(self.request.params.n):
            completion = self.add_completion(self._placeholder(index))
            if index < len(hypotheses):
                _replay(completion, hypotheses[index])
                completion.end(self.honest(cut_short or hypotheses[index].finish_reason))
                self.num_output_tokens += len(hypotheses[index].token_ids)
            else:
                completion.end(self.honest(cut_short or FinishReason.LENGTH))

    def take_output(self, now: float) -> RequestOutput | None:
        """What the request gained since the last time; None when there is nothing to say yet.

        `best_of` more than `n` and beam search speak once, at the end: only then it is known which
        completions are the best.
        """
        params = self.request.params
        finished = self.finished
        speaks_once = self.search is not None or params.num_samples > params.n
        if speaks_once and not finished:
            return None
        completions = self._best() if params.num_samples > params.n else self.completions
        outputs = [completion.take_news() for completion in completions]
        outputs = [news for news in outputs if news.token_ids or news.text or news.finish_reason]
        if not outputs:
            return None
        output = RequestOutput(
            request_id=self.request.request_id,
            outputs=outputs,
            finished=finished,
            num_prompt_tokens=len(self.request.prompt_token_ids),
            num_output_tokens=self.num_output_tokens,
            num_cached_tokens=self.num_cached_tokens,
            timing=self.timing(now),
            error=self.error,
        )
        if self.prompt_logprobs and not self.told_prompt:
            self.told_prompt = True
            output.prompt_logprobs = self.prompt_logprobs
        return output

    def timing(self, now: float) -> RequestTiming:
        arrival = self.request.arrival_s
        started = now if self.started_s is None else self.started_s
        first_token = now if self.first_token_s is None else self.first_token_s
        return RequestTiming(
            queue_s=started - arrival,
            prefill_s=first_token - started,
            decode_s=now - first_token,
            total_s=now - arrival,
        )

    def _placeholder(self, index: int) -> Sequence:
        """A sequence that is never scheduled: it carries a completion's tokens."""
        return Sequence(-1, self.request, list(self.request.prompt_token_ids), index)

    def request_stats(self, now: float) -> RequestStats:
        return RequestStats(
            finish_reasons=tuple(c.finish_reason for c in self.completions if c.finish_reason),
            num_prompt_tokens=len(self.request.prompt_token_ids),
            num_output_tokens=self.num_output_tokens,
            num_cached_tokens=self.num_cached_tokens,
            timing=self.timing(now),
        )

    def _best(self) -> list[Completion]:
        """The `n` completions with the highest log-probability per token, numbered by rank."""
        best = sorted(self.completions, key=_mean_logprob, reverse=True)
        best = best[: self.request.params.n]
        for rank, completion in enumerate(best):
            completion.news.index = rank
        return best


def _replay(completion: Completion, hypothesis: Hypothesis) -> None:
    """Makes a finished beam the completion's output, as if its tokens had just been sampled."""
    completion.seq.max_num_tokens = completion.seq.num_tokens + len(hypothesis.token_ids)
    for token_id in hypothesis.token_ids:
        completion.append(SampledToken(token_id))
    completion.cumulative_logprob = hypothesis.cumulative_logprob


def _mean_logprob(completion: Completion) -> float:
    if completion.cumulative_logprob is None:
        return float("-inf")
    return completion.cumulative_logprob / max(1, completion.seq.num_output_tokens)


@dataclass(slots=True)
class StepNews:
    """What a step brought: the requests with something to say, and when tokens came."""

    touched: dict[RequestState, None] = field(default_factory=dict)  # an ordered set
    num_sequences: int = 0  # that the step was planned for
    now: float = 0.0  # when the step's tokens were there
    first_token_s: list[float] = field(default_factory=list)
    inter_token_s: list[float] = field(default_factory=list)

    def record_token(self, state: RequestState, completion: Completion) -> None:
        if completion.last_token_s:
            self.inter_token_s.append(self.now - completion.last_token_s)
        elif state.first_token_s is None:
            state.first_token_s = self.now
            self.first_token_s.append(self.now - state.request.arrival_s)
        completion.last_token_s = self.now

    def stats(self, load: EngineLoad, num_batched_tokens: int, step_s: float) -> StepStats:
        return StepStats(
            load=load,
            num_batched_tokens=num_batched_tokens,
            num_sequences=self.num_sequences,
            step_s=step_s,
            first_token_s=self.first_token_s,
            inter_token_s=self.inter_token_s,
        )
