"""`POST /v1/embeddings`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from orrery import methods
from orrery.v1 import common_pb2
from orrery.v1 import embedding_pb2 as pb
from services.gateway.answers import json_answer
from services.gateway.body import JsonRoute
from services.gateway.deps import CallerDep, GatewayDep
from services.gateway.middleware import note_user
from services.gateway.rendering.embeddings import embedding_document
from services.gateway.routes.documentation import ERROR_RESPONSES
from services.gateway.schemas.embeddings import EmbeddingList, EmbeddingRequest
from services.gateway.upstream import Service

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["embeddings"], responses=ERROR_RESPONSES)

_PURPOSES = {
    None: pb.EMBEDDING_PURPOSE_UNSPECIFIED,
    "query": pb.EMBEDDING_PURPOSE_QUERY,
    "passage": pb.EMBEDDING_PURPOSE_PASSAGE,
}
_NAMES = {"inputs": "input"}


@router.post("/v1/embeddings", response_model=EmbeddingList, response_model_exclude_none=True)
async def create_embeddings(
    body: EmbeddingRequest, request: Request, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """One vector for each input, in the order of the inputs."""
    note_user(request, body.user)

    async def document() -> dict[str, Any]:
        model = await gateway.embedding_catalog.find(body.model, caller)
        message = pb.EmbedTextRequest(
            model=model.name,
            inputs=map(_input, body.input),
            purpose=_PURPOSES[body.purpose],
            dimensions=body.dimensions,
            truncate=body.truncate,
        )
        service = Service("embedding", model.application, gateway.upstream)
        response = await service.call(methods.EMBED_TEXT, message, caller, _NAMES)
        return embedding_document(
            response,
            as_base64=body.encoding_format == "base64",
            mark_truncated=bool(body.truncate),
        )

    return json_answer(document)


def _input(entry: str | list[int]) -> pb.EmbeddingInput:
    if isinstance(entry, str):
        return pb.EmbeddingInput(text=entry)
    return pb.EmbeddingInput(token_ids=common_pb2.TokenIds(ids=entry))
