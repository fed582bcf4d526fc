"""Protobuf messages of `rag.proto` to and from the domain, field by field, no decisions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from orrery.v1 import common_pb2, rag_pb2, retrieval_pb2
from services.rag.conversations import Conversation
from services.rag.types import (
    Abstention,
    Answer,
    AnswerMode,
    AnswerText,
    AskOptions,
    Citation,
    GenerationUsage,
    Passage,
    PassagesFound,
    Question,
    SearchMode,
    StageTime,
)
from services.runtime.errors import InvalidRequest, OrreryError, kind_of

__all__ = [
    "conversation",
    "delta",
    "failed",
    "passages",
    "question",
    "questions",
    "result",
    "usage",
]

T = TypeVar("T")

_ANSWER_MODES: Mapping[int, AnswerMode] = MappingProxyType(
    {
        rag_pb2.ANSWER_MODE_UNSPECIFIED: AnswerMode.STRICT,
        rag_pb2.ANSWER_MODE_STRICT: AnswerMode.STRICT,
        rag_pb2.ANSWER_MODE_OPEN: AnswerMode.OPEN,
    }
)
_SEARCH_MODES: Mapping[int, SearchMode] = MappingProxyType(
    {
        retrieval_pb2.SEARCH_MODE_UNSPECIFIED: SearchMode.AUTO,
        retrieval_pb2.SEARCH_MODE_HYBRID: SearchMode.HYBRID,
        retrieval_pb2.SEARCH_MODE_DENSE: SearchMode.DENSE,
        retrieval_pb2.SEARCH_MODE_SPARSE: SearchMode.SPARSE,
    }
)
_ABSTENTIONS: Mapping[Abstention | None, rag_pb2.AbstentionReason] = MappingProxyType(
    {
        None: rag_pb2.ABSTENTION_REASON_UNSPECIFIED,
        Abstention.NO_PASSAGE: rag_pb2.ABSTENTION_REASON_NO_PASSAGE,
        Abstention.MODEL: rag_pb2.ABSTENTION_REASON_MODEL,
        Abstention.UNSUPPORTED: rag_pb2.ABSTENTION_REASON_UNSUPPORTED,
    }
)


# --- in ---------------------------------------------------------------------------------------


def question(message: rag_pb2.AskRequest) -> Question:
    """Raises `InvalidRequest` for an enum's value that the contract does not have."""
    return Question(
        text=message.question,
        collection=message.collection,
        options=_options(message.options),
        conversation_id=message.conversation_id,
        consistency_token=message.consistency_token,
        model=message.model,
    )


def questions(message: rag_pb2.AskBatchRequest) -> list[Question]:
    """Raises as `question` does."""
    options = _options(message.options)
    return [
        Question(
            text=text,
            collection=message.collection,
            options=options,
            consistency_token=message.consistency_token,
            model=message.model,
        )
        for text in message.questions
    ]


def _options(message: rag_pb2.AskOptions) -> AskOptions:
    def given(name: str) -> bool:
        return message.HasField(name)

    return AskOptions(
        k=message.k if given("k") else None,
        max_passages=message.max_passages if given("max_passages") else None,
        search_mode=_known(_SEARCH_MODES, message.search_mode, "options.search_mode"),
        min_score=message.min_score if given("min_score") else None,
        mode=_known(_ANSWER_MODES, message.mode, "options.mode"),
        num_queries=message.num_queries if given("num_queries") else 1,
        hyde=message.hyde,
        num_samples=message.num_samples if given("num_samples") else 1,
        chain_of_thought=message.chain_of_thought,
        max_tokens=message.max_tokens if given("max_tokens") else None,
        temperature=message.temperature if given("temperature") else None,
        seed=message.seed if given("seed") else None,
        search=_search_options(message),
    )


def _search_options(message: rag_pb2.AskOptions) -> retrieval_pb2.SearchOptions:
    """What the retrieval service reads and checks."""
    options = retrieval_pb2.SearchOptions(rerank=message.rerank)
    if message.HasField("filter"):
        options.filter.CopyFrom(message.filter)
    if message.HasField("fusion"):
        options.fusion.CopyFrom(message.fusion)
    if message.HasField("diversity"):
        options.diversity.CopyFrom(message.diversity)
    return options


def _known(values: Mapping[int, T], number: int, field: str) -> T:
    if number not in values:
        raise InvalidRequest(f"{field}: {number} is no value of it", field=field)
    return values[number]


# --- out --------------------------------------------------------------------------------------


def passages(found: PassagesFound) -> rag_pb2.Passages:
    """The hits as the retrieval service gave them, with their scores in this order."""
    return rag_pb2.Passages(
        hits=map(_hit, found.passages),
        used=found.used,
        index_generation=found.index_generation,
        queries=found.queries,
        notices=found.notices,
    )


def _hit(passage: Passage) -> retrieval_pb2.Hit:
    assert isinstance(passage.source, retrieval_pb2.Hit)
    hit = retrieval_pb2.Hit()
    hit.CopyFrom(passage.source)
    hit.score = passage.score
    return hit


def delta(text: AnswerText) -> rag_pb2.AnswerDelta:
    return rag_pb2.AnswerDelta(text=text.text, reasoning=text.reasoning)


def result(
    answer: Answer, found: PassagesFound, *, request_id: str, conversation_id: str, total_ns: int
) -> rag_pb2.AskResult:
    """The last message of a question."""
    return rag_pb2.AskResult(
        request_id=request_id,
        answer=answer.text,
        reasoning=answer.reasoning,
        abstention=_ABSTENTIONS[answer.abstention],
        citations=[_citation(citation, found) for citation in answer.citations],
        model=answer.model,
        conversation_id=conversation_id,
        agreement=answer.agreement,
        index_generation=answer.index_generation,
        usage=usage(answer.usage),
        timing=common_pb2.Timing(
            queue_ns=answer.timing.queue_ns,
            prefill_ns=answer.timing.prefill_ns,
            decode_ns=answer.timing.decode_ns,
            retrieval_ns=answer.retrieval_ns,
            rerank_ns=answer.rerank_ns,
            total_ns=total_ns,
        ),
        timeline=map(_stage, answer.timeline),
        turn_saved=answer.turn_saved,
        truncated=answer.truncated,
    )


def _citation(citation: Citation, found: PassagesFound) -> rag_pb2.Citation:
    passage = found.passages[citation.passage]
    return rag_pb2.Citation(
        answer_start=citation.answer_start,
        answer_end=citation.answer_end,
        passage=citation.passage,
        chunk_id=passage.chunk_id,
        document_id=passage.document_id,
        document_title=passage.document_title,
        file_name=passage.file_name,
        source_start=citation.source_start,
        source_end=citation.source_end,
        line_start=citation.line_start,
        line_end=citation.line_end,
        page=passage.page,
        quote=citation.quote,
        score=citation.score,
    )


def _stage(stage: StageTime) -> common_pb2.StageTiming:
    return common_pb2.StageTiming(
        stage=stage.stage,
        start_ns=stage.start_ns,
        duration_ns=stage.duration_ns,
        detail=stage.detail,
    )


def usage(counts: GenerationUsage) -> common_pb2.Usage:
    return common_pb2.Usage(
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
        cached_tokens=counts.cached_tokens,
    )


def failed(error: OrreryError) -> rag_pb2.AskBatchItem:
    """One question of a batch that has no answer."""
    return rag_pb2.AskBatchItem(
        error=retrieval_pb2.ItemError(
            reason=kind_of(error).reason, message=error.message, field=error.field or ""
        )
    )


def conversation(found: Conversation, timing: common_pb2.Timing) -> rag_pb2.GetConversationResponse:
    return rag_pb2.GetConversationResponse(
        turns=[
            rag_pb2.ConversationTurn(
                question=turn.question,
                answer=turn.answer,
                abstention=_ABSTENTIONS[turn.abstention],
            )
            for turn in found.turns
        ],
        ttl_s=found.ttl_s,
        timing=timing,
    )
