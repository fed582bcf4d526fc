"""`POST /v1/completions`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from orrery import methods
from orrery.v1 import generation_pb2 as pb
from services.gateway import answers, generation
from services.gateway.body import JsonRoute
from services.gateway.deps import CallerDep, Gateway, GatewayDep
from services.gateway.generation import Job
from services.gateway.middleware import note_user
from services.gateway.rendering.common import ChunkRenderer, Envelope
from services.gateway.rendering.completions import (
    CompletionChunks,
    CompletionShape,
    Echo,
    completion_document,
)
from services.gateway.routes.documentation import generation_responses
from services.gateway.schemas.completions import Completion, CompletionRequest
from services.gateway.translate import generation as translate
from services.gateway.upstream import Caller

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["generation"])

_FIELD_NAMES = {"prompts": "prompt", "include_stop_in_output": "include_stop_str_in_output"}


@router.post(
    "/v1/completions", response_model=Completion, responses=generation_responses(Completion)
)
async def create_completion(
    body: CompletionRequest, request: Request, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Continues one or more prompts. With `stream: true` the answer comes as server-sent events."""
    note_user(request, body.user)

    async def document() -> dict[str, Any]:
        job = await _job(gateway, body, caller)
        shape = await _shape(gateway, body, job)
        results = await generation.complete(gateway.upstream, job)
        return completion_document(_envelope(job), results, shape)

    async def begin() -> tuple[answers.Messages, ChunkRenderer]:
        job = await _job(gateway, body, caller)
        shape = await _shape(gateway, body, job)
        chunks = CompletionChunks(_envelope(job), shape, include_usage=body.wants_usage_chunk)
        return generation.stream(gateway.upstream, job), chunks

    if body.wants_stream:
        return answers.streamed_answer(begin, include_usage=body.wants_usage_chunk)
    return answers.json_answer(document)


async def _job(gateway: Gateway, body: CompletionRequest, caller: Caller) -> Job:
    names = _FIELD_NAMES
    if body.prompt_logprobs is None:  # then only `echo` with `logprobs` can have asked for them
        names = names | {"prompt_logprobs": "logprobs"}
    job = Job(
        model=await gateway.catalog.find(body.model, caller),
        prompts=translate.completion_prompts(body),
        sampling=translate.completion_sampling(body),
        caller=caller,
        priority=body.priority or 0,
        field_names=names,
    )
    job.check_size()
    return job


async def _shape(gateway: Gateway, body: CompletionRequest, job: Job) -> CompletionShape:
    echoes: list[Echo] = []
    if body.echo:
        echoes = list(
            await asyncio.gather(*(_echo(gateway, body, job, prompt) for prompt in body.prompt))
        )
    return CompletionShape(
        n=1 if body.n is None else body.n,
        logprobs=body.logprobs is not None,
        prompt_logprobs=body.prompt_logprobs is not None,
        echoes=echoes,
    )


async def _echo(
    gateway: Gateway, body: CompletionRequest, job: Job, prompt: str | list[int]
) -> Echo:
    """What to repeat. The first token's text is needed, and asked for, only beside `logprobs`."""
    wants_tokens = body.logprobs is not None
    if isinstance(prompt, str):
        return Echo(prompt, await _first_token(gateway, job, prompt) if wants_tokens else "")
    skip_special_tokens = body.skip_special_tokens is not False
    text = await _detokenize(gateway, job, prompt, skip_special_tokens)
    return Echo(text, await _detokenize(gateway, job, prompt[:1], False) if wants_tokens else "")


async def _first_token(gateway: Gateway, job: Job, text: str) -> str:
    request = pb.TokenizeRequest(model=job.model.name, prompt=translate.text_prompt(text))
    response = await gateway.upstream.unary(
        job.model.application, methods.TOKENIZE, request, job.caller
    )
    return response.tokens[0]


async def _detokenize(
    gateway: Gateway, job: Job, token_ids: list[int], skip_special_tokens: bool
) -> str:
    request = pb.DetokenizeRequest(
        model=job.model.name, token_ids=token_ids, skip_special_tokens=skip_special_tokens
    )
    response = await gateway.upstream.unary(
        job.model.application, methods.DETOKENIZE, request, job.caller
    )
    return response.text


def _envelope(job: Job) -> Envelope:
    return Envelope(
        id=f"cmpl-{job.caller.request_id}",
        object="text_completion",
        created=int(time.time()),
        model=job.model.name,
        system_fingerprint=job.model.fingerprint,
    )
