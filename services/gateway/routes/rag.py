"""`POST /v1/rag/ask` and `/v1/rag/conversations/{id}`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from orrery import methods
from orrery.v1 import rag_pb2 as pb
from services.gateway import sse
from services.gateway.answers import event_answer, json_answer
from services.gateway.body import JsonRoute
from services.gateway.deps import CallerDep, ConsistencyDep, Gateway, GatewayDep
from services.gateway.errors import error_event_body
from services.gateway.middleware import note_user
from services.gateway.rendering.rag import (
    answer_document,
    ask_events,
    batch_document,
    conversation_document,
)
from services.gateway.rendering.retrieval import OPTION_NAMES
from services.gateway.routes.documentation import ERROR_RESPONSES, stream_response
from services.gateway.schemas.rag import (
    AskAnswer,
    AskRequest,
    Conversation,
    ConversationDeleted,
)
from services.gateway.translate.rag import ask_batch_request, ask_request
from services.gateway.upstream import Caller
from services.runtime.errors import DependencyDown, OrreryError

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["rag"], responses=ERROR_RESPONSES)

_STREAM = stream_response(
    "The whole answer (with `questions`, a list of them). With `stream: true`, events: `passages`, "
    "`delta` for each piece of text, `result`, and at the end `[DONE]`; the data of each has its "
    "name as `type`. A failure after the first is an event `error`, and there is no `[DONE]`."
)


@router.post("/v1/rag/ask", response_model=AskAnswer, responses=_STREAM)
async def ask(
    body: AskRequest,
    request: Request,
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """Answers a question from a collection's documents, with citations."""
    note_user(request, body.user)
    consistency_token = body.consistency_token or token

    async def message() -> pb.AskRequest:
        return ask_request(body, await _application(gateway, body, caller), consistency_token)

    async def one() -> dict[str, Any]:
        passages, result = pb.Passages(), None
        stream = gateway.rag.stream(methods.ASK, await message(), caller, OPTION_NAMES)
        async with aclosing(stream):
            async for answer in stream:
                if answer.HasField("passages"):
                    passages = answer.passages
                elif answer.HasField("result"):
                    result = answer.result
        if result is None:
            raise _cut_short()
        document: dict[str, Any] = answer_document(passages, result, explain=bool(body.explain))
        return document

    async def many() -> dict[str, Any]:
        application = await _application(gateway, body, caller)
        batch = ask_batch_request(body, application, consistency_token)
        return batch_document(
            await gateway.rag.call(methods.ASK_BATCH, batch, caller, OPTION_NAMES)
        )

    async def begin() -> AsyncGenerator[bytes, None]:
        stream = gateway.rag.stream(methods.ASK, await message(), caller, OPTION_NAMES)
        return _events(stream, explain=bool(body.explain))

    if body.stream:
        return event_answer(begin, _error_event)
    return json_answer(one if body.question is not None else many)


async def _application(gateway: Gateway, body: AskRequest, caller: Caller) -> str:
    """The generation application of the model that is to answer; empty = the service's default."""
    if body.model is None:
        return ""
    return (await gateway.catalog.find(body.model, caller)).application


async def _events(
    stream: AsyncGenerator[pb.AskResponse, None], *, explain: bool
) -> AsyncGenerator[bytes, None]:
    is_whole = False
    async with aclosing(stream):
        async for message in stream:
            is_whole = message.HasField("result")
            yield ask_events(message, explain=explain)
    if not is_whole:
        raise _cut_short()


def _cut_short() -> DependencyDown:
    """One that is being stopped may end a stream as if all were well."""
    return DependencyDown("the RAG service stopped before the result", retry_after_s=1.0)


def _error_event(error: OrreryError) -> bytes:
    return sse.event({"type": "error", **error_event_body(error)}, "error")


@router.get("/v1/rag/conversations/{conversation_id}", response_model=Conversation)
async def get_conversation(
    conversation_id: str, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """The turns of a conversation."""

    async def document() -> dict[str, Any]:
        request = pb.GetConversationRequest(conversation_id=conversation_id)
        response = await gateway.rag.call(methods.GET_CONVERSATION, request, caller)
        return conversation_document(conversation_id, response)

    return json_answer(document)


@router.delete("/v1/rag/conversations/{conversation_id}", response_model=ConversationDeleted)
async def delete_conversation(
    conversation_id: str, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Forgets a conversation."""

    async def document() -> dict[str, Any]:
        request = pb.DeleteConversationRequest(conversation_id=conversation_id)
        await gateway.rag.call(methods.DELETE_CONVERSATION, request, caller)
        return {"id": conversation_id, "object": "rag.conversation.deleted", "deleted": True}

    return json_answer(document)
