"""Requests of the RAG service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict

from orrery.filters import Filter
from orrery.requests.common import assign, choose
from orrery.requests.embedding import RerankMethod
from orrery.requests.search import SearchMode, fill_options
from orrery.v1 import rag_pb2 as pb

__all__ = ["AnswerMode", "AskOptions", "build_ask", "build_ask_batch"]

AnswerMode: TypeAlias = Literal["strict", "open"]
_MODES = {"strict": pb.ANSWER_MODE_STRICT, "open": pb.ANSWER_MODE_OPEN}


class AskOptions(TypedDict, total=False):
    """How to answer. None = the service's default.

    The fields of `orrery.v1.AskOptions`; those of its `fusion` stand beside the others. In mode
    `strict` the answer comes from the passages alone; in `open` the model may answer by itself.
    """

    k: int | None
    max_passages: int | None
    search_mode: SearchMode | None
    filter: Filter | None
    dense_weight: float | None
    sparse_weight: float | None
    rrf_k: int | None
    min_score: float | None
    diversity: float | None
    rerank: RerankMethod | None
    mode: AnswerMode | None
    num_queries: int | None
    hyde: bool | None
    num_samples: int | None
    chain_of_thought: bool | None
    max_tokens: int | None
    temperature: float | None
    seed: int | None


def build_ask(
    question: str,
    collection: str,
    options: Mapping[str, Any],
    *,
    conversation: str | None,
    model: str | None,
    explain: bool,
) -> pb.AskRequest:
    """An `Ask` request."""
    request = pb.AskRequest(explain=explain)
    assign(request, "question", question)
    assign(request, "collection", collection)
    if conversation is not None:
        assign(request, "conversation_id", conversation, "conversation")
    if model is not None:
        assign(request, "model", model)
    _fill_ask_options(request.options, options)
    return request


def build_ask_batch(
    questions: Iterable[str], collection: str, options: Mapping[str, Any], *, model: str | None
) -> pb.AskBatchRequest:
    """An `AskBatch` request."""
    if isinstance(questions, str):
        raise TypeError("questions: expected several texts, got one")
    request = pb.AskBatchRequest()
    assign(request, "questions", list(questions))
    assign(request, "collection", collection)
    if model is not None:
        assign(request, "model", model)
    _fill_ask_options(request.options, options)
    return request


def _fill_ask_options(message: pb.AskOptions, options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in AskOptions.__annotations__:
            raise TypeError(f"unexpected keyword argument {name!r}: not an option of ask")
    others = {name: value for name, value in options.items() if name != "mode"}
    fill_options(message, others, mode_field="search_mode")
    if options.get("mode") is not None:
        message.mode = choose(_MODES, options["mode"], "mode")  # type: ignore[assignment]
