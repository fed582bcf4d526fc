"""`POST /tokenize` and `POST /detokenize`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from orrery import methods
from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from services.gateway.answers import json_answer
from services.gateway.body import JsonRoute
from services.gateway.deps import CallerDep, GatewayDep
from services.gateway.field_names import as_client_wrote
from services.gateway.routes.documentation import ERROR_RESPONSES
from services.gateway.schemas.tokens import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from services.gateway.translate import generation as translate
from services.runtime.errors import OrreryError

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["tokens"], responses=ERROR_RESPONSES)

_CHAT_NAMES = {"prompt": "messages", "prompt.messages": "messages"}


@router.post("/tokenize", response_model=TokenizeResponse)
async def tokenize(body: TokenizeRequest, gateway: GatewayDep, caller: CallerDep) -> Response:
    """The token ids of a text, or of a conversation after the model's chat template."""

    async def document() -> dict[str, Any]:
        model = await gateway.catalog.find(body.model, caller)
        request = pb.TokenizeRequest(
            model=model.name, prompt=_prompt(body), add_special_tokens=body.add_special_tokens
        )
        names = {} if body.messages is None else _CHAT_NAMES
        try:
            response = await gateway.upstream.unary(
                model.application, methods.TOKENIZE, request, caller
            )
        except OrreryError as error:
            raise as_client_wrote(error, names) from error.__cause__
        return {
            "count": len(response.token_ids),
            "max_model_len": response.max_model_len,
            "tokens": list(response.token_ids),
            "token_strs": list(response.tokens) if body.return_token_strs else None,
        }

    return json_answer(document)


@router.post("/detokenize", response_model=DetokenizeResponse)
async def detokenize(body: DetokenizeRequest, gateway: GatewayDep, caller: CallerDep) -> Response:
    """The text of token ids."""

    async def document() -> dict[str, Any]:
        model = await gateway.catalog.find(body.model, caller)
        request = pb.DetokenizeRequest(
            model=model.name,
            token_ids=body.tokens,
            skip_special_tokens=body.skip_special_tokens,
        )
        try:
            response = await gateway.upstream.unary(
                model.application, methods.DETOKENIZE, request, caller
            )
        except OrreryError as error:
            raise as_client_wrote(error, {"token_ids": "tokens"}) from error.__cause__
        return {"prompt": response.text}

    return json_answer(document)


def _prompt(body: TokenizeRequest) -> common_pb2.Prompt:
    if body.messages is not None:
        return translate.chat_prompt(body.messages, body.add_generation_prompt)
    assert body.prompt is not None
    return translate.text_prompt(body.prompt)
