"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.gateway import answers, generation
from services.gateway.body import JsonRoute
from services.gateway.deps import CallerDep, Gateway, GatewayDep
from services.gateway.generation import Job
from services.gateway.middleware import note_user
from services.gateway.rendering.chat import ChatChunks, chat_document
from services.gateway.rendering.common import ChunkRenderer, Envelope
from services.gateway.routes.documentation import generation_responses
from services.gateway.schemas.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
)
from services.gateway.translate import generation as translate
from services.gateway.upstream import Caller

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["generation"])

_FIELD_NAMES = {
    "prompt": "messages",
    "prompt.messages": "messages",
    "logprobs": "top_logprobs",
    "include_stop_in_output": "include_stop_str_in_output",
}


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses=generation_responses(ChatCompletionChunk),
)
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Answers a conversation. With `stream: true` the answer comes as server-sent events."""
    note_user(request, body.safety_identifier or body.user)

    async def document() -> dict[str, Any]:
        job = await _job(gateway, body, caller)
        results = await generation.complete(gateway.upstream, job)
        return chat_document(
            _envelope(job, "chat.completion"), results, logprobs=bool(body.logprobs)
        )

    async def begin() -> tuple[answers.Messages, ChunkRenderer]:
        job = await _job(gateway, body, caller)
        chunks = ChatChunks(
            _envelope(job, "chat.completion.chunk"),
            logprobs=bool(body.logprobs),
            include_usage=body.wants_usage_chunk,
        )
        return generation.stream(gateway.upstream, job), chunks

    if body.wants_stream:
        return answers.streamed_answer(begin, include_usage=body.wants_usage_chunk)
    return answers.json_answer(document)


async def _job(gateway: Gateway, body: ChatCompletionRequest, caller: Caller) -> Job:
    limit_name = "max_tokens" if body.max_tokens is not None else "max_completion_tokens"
    return Job(
        model=await gateway.catalog.find(body.model, caller),
        prompts=[translate.chat_prompt(body.messages, body.add_generation_prompt)],
        sampling=translate.chat_sampling(body),
        caller=caller,
        priority=body.priority or 0,
        field_names=_FIELD_NAMES | {"max_tokens": limit_name},
    )


def _envelope(job: Job, kind: str) -> Envelope:
    return Envelope(
        id=f"chatcmpl-{job.caller.request_id}",
        object=kind,
        created=int(time.time()),
        model=job.model.name,
        system_fingerprint=job.model.fingerprint,
    )
