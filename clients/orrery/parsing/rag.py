"""Answers of the RAG service, and the accumulation of their stream."""

from __future__ import annotations

from orrery.errors import OrreryError
from orrery.parsing.common import item_error, same_fields, timeline_of, timing_of, usage_of
from orrery.parsing.retrieval import parse_hit
from orrery.results import (
    Abstention,
    Answer,
    AnswerBatch,
    AnswerDelta,
    AnswerEvent,
    Citation,
    Conversation,
    ConversationTurn,
    Passages,
    RagLoad,
)
from orrery.v1 import rag_pb2 as pb

__all__ = [
    "AnswerAccumulator",
    "parse_answer_batch",
    "parse_conversation",
    "parse_rag_load",
]

_ABSTENTIONS: dict[int, Abstention | None] = {
    pb.ABSTENTION_REASON_UNSPECIFIED: None,
    pb.ABSTENTION_REASON_NO_PASSAGE: "no_passage",
    pb.ABSTENTION_REASON_MODEL: "model",
    pb.ABSTENTION_REASON_UNSUPPORTED: "unsupported",
}


class AnswerAccumulator:
    """Reads the messages of one `Ask` stream; the answer holds the passages that came first."""

    def __init__(self) -> None:
        self._passages = _passages(pb.Passages())
        self._answer: Answer | None = None

    def add(self, response: pb.AskResponse) -> AnswerEvent | None:
        """The event that a message is, or None for a kind that is newer than this client."""
        kind = response.WhichOneof("event")
        if kind == "passages":
            self._passages = _passages(response.passages)
            return self._passages
        if kind == "delta":
            return AnswerDelta(response.delta.text, response.delta.reasoning)
        if kind == "result":
            self._answer = _answer(response.result, self._passages)
            return self._answer
        return None

    @property
    def complete(self) -> bool:
        """Whether the last event has come."""
        return self._answer is not None

    def result(self) -> Answer:
        """The answer; the stream must be complete."""
        assert self._answer is not None
        return self._answer


def parse_answer_batch(response: pb.AskBatchResponse) -> AnswerBatch:
    """Many answers; the error of a question stands in its place."""

    def item(each: pb.AskBatchItem) -> Answer | OrreryError:
        if each.HasField("error"):
            return item_error(each.error, response.request_id)
        return _answer(each.result, _passages(each.passages))

    return AnswerBatch(
        request_id=response.request_id,
        items=tuple(item(each) for each in response.items),
        usage=usage_of(response.usage),
        timing=timing_of(response.timing),
    )


def parse_conversation(response: pb.GetConversationResponse) -> Conversation:
    """What a conversation remembers."""
    return Conversation(
        turns=tuple(
            ConversationTurn(turn.question, turn.answer, _abstention(turn.abstention))
            for turn in response.turns
        ),
        ttl_s=response.ttl_s,
        timing=timing_of(response.timing),
    )


def parse_rag_load(response: pb.RagServiceGetLoadResponse) -> RagLoad:
    """What the service is doing."""
    return same_fields(RagLoad, response, num_running_by_stage=dict(response.num_running_by_stage))


def _passages(message: pb.Passages) -> Passages:
    return Passages(
        hits=tuple(parse_hit(hit) for hit in message.hits),
        used=tuple(message.used),
        index_generation=message.index_generation,
        queries=tuple(message.queries),
        notices=tuple(message.notices),
    )


def _answer(message: pb.AskResult, passages: Passages) -> Answer:
    return same_fields(
        Answer,
        message,
        text=message.answer,
        abstention=_abstention(message.abstention),
        citations=tuple(_citation(citation) for citation in message.citations),
        passages=passages,
        usage=usage_of(message.usage),
        timing=timing_of(message.timing),
        timeline=timeline_of(message.timeline),
    )


def _citation(message: pb.Citation) -> Citation:
    return same_fields(
        Citation,
        message,
        line_start=message.line_start or None,
        line_end=message.line_end or None,
        page=message.page or None,
    )


def _abstention(value: int) -> Abstention | None:
    return _ABSTENTIONS.get(value, "unknown")
