"""Answers from documents as JSON: whole and as events."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from orrery.v1 import rag_pb2 as pb
from services.gateway import sse
from services.gateway.rendering import values
from services.gateway.rendering.retrieval import OPTION_NAMES, hit_document

__all__ = ["answer_document", "ask_events", "batch_document", "conversation_document"]

_ABSTENTIONS = MappingProxyType(
    {
        pb.ABSTENTION_REASON_UNSPECIFIED: None,
        pb.ABSTENTION_REASON_NO_PASSAGE: "no_passage",
        pb.ABSTENTION_REASON_MODEL: "model",
        pb.ABSTENTION_REASON_UNSUPPORTED: "unsupported",
    }
)


def ask_events(message: pb.AskResponse, *, explain: bool) -> bytes:
    """One message as one event; its data says the event's name, too, as `type`."""
    kind = message.WhichOneof("event")
    if kind == "passages":
        fields = _passages(message.passages)
    elif kind == "delta":
        fields = {"text": message.delta.text, "reasoning": message.delta.reasoning}
    elif kind == "result":
        fields = _result(message.result, explain=explain)
    else:
        return b""
    return sse.event({"type": kind, **fields}, kind)


def answer_document(passages: pb.Passages, result: pb.AskResult, *, explain: bool) -> Any:
    """The whole answer."""
    return {**_result(result, explain=explain), **_passages(passages)}


def batch_document(response: pb.AskBatchResponse) -> dict[str, Any]:
    """The answers to many questions."""
    return {
        "id": response.request_id,
        "object": "list",
        "data": [
            {"error": values.item_error(item.error, OPTION_NAMES)}
            if item.HasField("error")
            else answer_document(item.passages, item.result, explain=False)
            for item in response.items
        ],
        "usage": values.usage(response.usage),
        "timing": values.timing(response.timing),
    }


def conversation_document(
    conversation_id: str, response: pb.GetConversationResponse
) -> dict[str, Any]:
    """A conversation, its oldest turn first."""
    return {
        "id": conversation_id,
        "object": "rag.conversation",
        "turns": [
            {
                "question": turn.question,
                "answer": turn.answer,
                "abstention": _ABSTENTIONS[turn.abstention],
            }
            for turn in response.turns
        ],
        "ttl_s": response.ttl_s,
    }


def _passages(passages: pb.Passages) -> dict[str, Any]:
    return {
        "passages": [hit_document(hit) for hit in passages.hits],
        "used": list(passages.used),
        "queries": list(passages.queries),
        "notices": list(passages.notices),
        "index_generation": passages.index_generation,
    }


def _result(result: pb.AskResult, *, explain: bool) -> dict[str, Any]:
    fields = {
        "id": result.request_id,
        "object": "rag.answer",
        "answer": result.answer,
        "reasoning": result.reasoning,
        "abstention": _ABSTENTIONS[result.abstention],
        "citations": [_citation(citation) for citation in result.citations],
        "model": result.model,
        "conversation_id": result.conversation_id or None,
        "turn_saved": result.turn_saved,
        "truncated": result.truncated,
        "agreement": np.float32(result.agreement),
        "index_generation": result.index_generation,
        "usage": values.usage(result.usage),
        "timing": values.timing(result.timing),
    }
    if explain:
        fields["timeline"] = values.timeline(result.timeline)
    return fields


def _citation(citation: pb.Citation) -> dict[str, Any]:
    return {
        "answer_start": citation.answer_start,
        "answer_end": citation.answer_end,
        "passage": citation.passage,
        "chunk_id": citation.chunk_id,
        "document_id": citation.document_id,
        "document_title": citation.document_title,
        "file_name": citation.file_name,
        "source_start": citation.source_start,
        "source_end": citation.source_end,
        "line_start": citation.line_start or None,
        "line_end": citation.line_end or None,
        "page": citation.page or None,
        "quote": citation.quote,
        "score": np.float32(citation.score),
    }
