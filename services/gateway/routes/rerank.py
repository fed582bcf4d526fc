"""`POST /v1/rerank`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from orrery import methods
from orrery.v1 import embedding_pb2 as pb
from services.gateway.answers import json_answer
from services.gateway.body import JsonRoute
from services.gateway.catalog import ServedModel
from services.gateway.deps import CallerDep, Gateway, GatewayDep
from services.gateway.middleware import note_user
from services.gateway.rendering.embeddings import rerank_document
from services.gateway.routes.documentation import ERROR_RESPONSES
from services.gateway.schemas.embeddings import RerankAnswer, RerankRequest
from services.gateway.translate.retrieval import RERANK_METHODS
from services.gateway.upstream import Caller, Service
from services.runtime.errors import InvalidRequest

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["embeddings"], responses=ERROR_RESPONSES)

_NAMES = {"passages": "documents"}


@router.post("/v1/rerank", response_model=RerankAnswer, response_model_exclude_none=True)
async def rerank(
    body: RerankRequest, request: Request, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Orders documents by their relevance to a query."""
    note_user(request, body.user)

    async def document() -> dict[str, Any]:
        model, method = await _model(gateway, body, caller)
        message = pb.RerankRequest(
            model=model.name,
            query=body.query,
            passages=body.documents,
            top_n=body.top_n,
            method=RERANK_METHODS[method],
        )
        service = Service("embedding", model.application, gateway.upstream)
        response = await service.call(methods.RERANK, message, caller, _NAMES)
        return rerank_document(response, body.documents if body.return_documents else None)

    return json_answer(document)


async def _model(
    gateway: Gateway, body: RerankRequest, caller: Caller
) -> tuple[ServedModel[pb.GetEmbeddingModelResponse], str | None]:
    """The model that is meant, and by which method."""
    catalog = gateway.embedding_catalog
    if body.model is None:
        return await catalog.first(caller), body.method
    for model in await catalog.models(caller):
        if body.model == model.info.reranker:
            if body.method == "bi_encoder":
                raise InvalidRequest(
                    "method: expected cross_encoder, which that model is", field="method"
                )
            return model, "cross_encoder"
    return await catalog.find(body.model, caller), body.method
