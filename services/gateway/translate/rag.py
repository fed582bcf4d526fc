"""Questions -> the contract's messages."""

from __future__ import annotations

from types import MappingProxyType

from orrery.v1 import rag_pb2 as pb
from services.gateway.schemas.rag import AskRequest
from services.gateway.translate.filters import metadata_filter
from services.gateway.translate.retrieval import (
    RERANK_METHODS,
    SEARCH_MODES,
    diversity_options,
    fusion_options,
)

__all__ = ["ask_batch_request", "ask_request"]

_MODES = MappingProxyType(
    {
        None: pb.ANSWER_MODE_UNSPECIFIED,
        "strict": pb.ANSWER_MODE_STRICT,
        "open": pb.ANSWER_MODE_OPEN,
    }
)


def ask_request(body: AskRequest, application: str, token: str) -> pb.AskRequest:
    """One question, for the generation application of that name (empty = the default)."""
    return pb.AskRequest(
        question=body.question,
        collection=body.collection,
        options=_options(body),
        conversation_id=body.conversation_id or "",
        consistency_token=token,
        model=application,
        explain=bool(body.explain),
    )


def ask_batch_request(body: AskRequest, application: str, token: str) -> pb.AskBatchRequest:
    """Many questions, likewise."""
    return pb.AskBatchRequest(
        questions=body.questions,
        collection=body.collection,
        options=_options(body),
        consistency_token=token,
        model=application,
    )


def _options(body: AskRequest) -> pb.AskOptions:
    return pb.AskOptions(
        k=body.k,
        max_passages=body.max_passages,
        search_mode=SEARCH_MODES[body.search_mode],
        filter=metadata_filter(body.filter),
        fusion=fusion_options(body.fusion),
        min_score=body.min_score,
        diversity=diversity_options(body.diversity),
        rerank=RERANK_METHODS[body.rerank],
        mode=_MODES[body.mode],
        num_queries=body.num_queries,
        hyde=bool(body.hyde),
        num_samples=body.num_samples,
        chain_of_thought=bool(body.chain_of_thought),
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        seed=body.seed,
    )
