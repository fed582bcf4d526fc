"""`POST /v1/embeddings`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.gateway import embedding
from services.gateway.answers import json_answer
from services.gateway.body import JsonRoute
from services.gateway.deps import CallerDep, GatewayDep
from services.gateway.embedding import EmbeddingJob
from services.gateway.middleware import note_user
from services.gateway.rendering.embeddings import embedding_document
from services.gateway.routes.documentation import ERROR_RESPONSES
from services.gateway.schemas.embeddings import EmbeddingList, EmbeddingRequest
from services.gateway.upstream import Service

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["embeddings"], responses=ERROR_RESPONSES)


@router.post("/v1/embeddings", response_model=EmbeddingList, response_model_exclude_none=True)
async def create_embeddings(
    body: EmbeddingRequest, request: Request, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """One vector for each input, a text or a picture, in the order of the inputs."""
    note_user(request, body.user)

    async def document() -> dict[str, Any]:
        model = await gateway.embedding_catalog.find(body.model, caller)
        service = Service("embedding", model.application, gateway.upstream)
        embedded = await embedding.embed(EmbeddingJob(model, service, body, caller))
        return embedding_document(
            embedded,
            as_base64=body.encoding_format == "base64",
            mark_truncated=bool(body.truncate),
        )

    return json_answer(document)
