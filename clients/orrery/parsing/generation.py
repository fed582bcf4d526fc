"""Answers of the generation service, and the accumulation of its stream."""

from __future__ import annotations

from collections.abc import Iterable

from orrery.errors import OrreryError
from orrery.parsing.common import item_error, same_fields, timing_of, usage_of
from orrery.results import (
    BatchResult,
    CacheGeometry,
    Choice,
    DetokenizeResult,
    FinishReason,
    GenerationResult,
    Load,
    ModelInfo,
    PositionLogprobs,
    RequestLimits,
    ScoreResult,
    StreamEvent,
    TokenizeResult,
    TokenLogprob,
)
from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb

__all__ = [
    "StreamAccumulator",
    "parse_batch",
    "parse_detokenize",
    "parse_event",
    "parse_load",
    "parse_model",
    "parse_score",
    "parse_tokenize",
]

_FINISH_REASONS: dict[int, FinishReason | None] = {
    pb.FINISH_REASON_UNSPECIFIED: None,
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_CANCELLED: "cancelled",
    pb.FINISH_REASON_DEADLINE: "deadline",
    pb.FINISH_REASON_ERROR: "error",
}


def parse_event(response: pb.GenerateResponse) -> StreamEvent:
    """One message of a `Generate` stream."""
    return StreamEvent(
        request_id=response.request_id,
        model=response.model,
        choices=tuple(_choice(delta) for delta in response.choices),
        prompt_token_ids=tuple(response.prompt_token_ids),
        prompt_logprobs=_positions(response.prompt_logprobs),
        usage=usage_of(response.usage),
        timing=timing_of(response.timing),
    )


def parse_batch(response: pb.GenerateBatchResponse) -> BatchResult:
    """The answers to many prompts; an error of one stands in its place."""
    return BatchResult(
        request_id=response.request_id,
        model=response.model,
        results=tuple(_batch_item(item, response) for item in response.results),
        usage=usage_of(response.usage),
        timing=timing_of(response.timing),
    )


def parse_score(response: pb.ScoreResponse) -> ScoreResult:
    """Log-probabilities of a text."""
    return ScoreResult(
        request_id=response.request_id,
        model=response.model,
        tokens=_positions(response.tokens),
        total_logprob=response.total_logprob,
        num_scored_tokens=response.num_scored_tokens,
        perplexity=response.perplexity,
        usage=usage_of(response.usage),
        timing=timing_of(response.timing),
    )


def parse_tokenize(response: pb.TokenizeResponse) -> TokenizeResult:
    """The tokens of a prompt."""
    return TokenizeResult(
        token_ids=tuple(response.token_ids),
        tokens=tuple(response.tokens),
        max_model_len=response.max_model_len,
        usage=usage_of(response.usage),
        timing=timing_of(response.timing),
    )


def parse_detokenize(response: pb.DetokenizeResponse) -> DetokenizeResult:
    """The text of token ids."""
    return DetokenizeResult(response.text, usage_of(response.usage), timing_of(response.timing))


def parse_model(response: pb.GetModelResponse, application: str) -> ModelInfo:
    """What an application serves."""
    return same_fields(
        ModelInfo,
        response,
        name=response.model,
        application=application,
        cache=same_fields(CacheGeometry, response.cache),
        limits=same_fields(RequestLimits, response.limits),
    )


def parse_load(response: pb.GetLoadResponse) -> Load:
    """What an engine is doing."""
    return same_fields(Load, response)


class StreamAccumulator:
    """Puts the messages of one `Generate` stream together again."""

    def __init__(self) -> None:
        self._choices: dict[int, list[Choice]] = {}
        self._first: StreamEvent | None = None
        self._last: StreamEvent | None = None

    def add(self, event: StreamEvent) -> None:
        """Takes the next event in."""
        self._first = self._first or event
        self._last = event
        for choice in event.choices:
            self._choices.setdefault(choice.index, []).append(choice)

    @property
    def complete(self) -> bool:
        """Whether there are choices and each has its finish reason."""
        return bool(self._choices) and all(
            parts[-1].finish_reason is not None for parts in self._choices.values()
        )

    def result(self) -> GenerationResult:
        """The generation as far as it came; there must have been an event."""
        assert self._first is not None
        assert self._last is not None
        return GenerationResult(
            request_id=self._first.request_id,
            model=self._first.model,
            choices=tuple(_join(self._choices[index]) for index in sorted(self._choices)),
            prompt_token_ids=self._first.prompt_token_ids,
            prompt_logprobs=self._first.prompt_logprobs,
            usage=self._last.usage,
            timing=self._last.timing,
        )


def _join(parts: list[Choice]) -> Choice:
    last = parts[-1]
    return Choice(
        index=last.index,
        text="".join(part.text for part in parts),
        token_ids=tuple(token_id for part in parts for token_id in part.token_ids),
        logprobs=tuple(position for part in parts for position in part.logprobs),
        finish_reason=last.finish_reason,
        stop_reason=last.stop_reason,
        cumulative_logprob=last.cumulative_logprob,
    )


def _batch_item(
    item: pb.BatchResult, response: pb.GenerateBatchResponse
) -> GenerationResult | OrreryError:
    if item.HasField("error"):
        return item_error(item.error, response.request_id)
    return GenerationResult(
        request_id=response.request_id,
        model=response.model,
        choices=tuple(_choice(completion) for completion in item.completions),
        prompt_token_ids=tuple(item.prompt_token_ids),
        prompt_logprobs=_positions(item.prompt_logprobs),
        usage=usage_of(item.usage),
        timing=timing_of(item.timing),
    )


def _choice(part: pb.CompletionDelta | pb.Completion) -> Choice:
    kind = part.WhichOneof("stop_reason")
    return Choice(
        index=part.index,
        text=part.text,
        token_ids=tuple(part.token_ids),
        logprobs=_positions(part.logprobs),
        finish_reason=_FINISH_REASONS.get(part.finish_reason, "unknown"),
        stop_reason=None if kind is None else getattr(part, kind),
        cumulative_logprob=(
            part.cumulative_logprob if part.HasField("cumulative_logprob") else None
        ),
    )


def _positions(messages: Iterable[common_pb2.PositionLogprobs]) -> tuple[PositionLogprobs, ...]:
    return tuple(
        PositionLogprobs(
            chosen=_token(message.chosen) if message.HasField("chosen") else None,
            top=tuple(_token(candidate) for candidate in message.top),
        )
        for message in messages
    )


def _token(message: common_pb2.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(
        message.token_id, message.token, message.token_bytes, message.logprob, message.rank
    )
