"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from fastapi import APIRouter

from orrery.v1.embedding_pb2 import GetEmbeddingModelResponse
from orrery.v1.generation_pb2 import GetModelResponse
from services.gateway.catalog import ServedModel
from services.gateway.deps import CallerDep, GatewayDep
from services.gateway.routes.documentation import ERROR_RESPONSES
from services.gateway.schemas.models import Model, ModelList
from services.runtime.errors import ModelNotFound

__all__ = ["router"]

router = APIRouter(tags=["models"], responses=ERROR_RESPONSES)


@router.get("/v1/models", response_model_exclude_none=True)
async def list_models(gateway: GatewayDep, caller: CallerDep) -> ModelList:
    """Every model that is served at this moment: those that write, then those that embed."""
    generating = await gateway.catalog.models(caller)
    embedding = await gateway.embedding_catalog.models(caller)
    return ModelList(data=[*map(_generation_model, generating), *map(_embedding_model, embedding)])


@router.get("/v1/models/{model_id:path}", response_model_exclude_none=True)
async def retrieve_model(model_id: str, gateway: GatewayDep, caller: CallerDep) -> Model:
    """One model, by its name, an alias or its application's name."""
    try:
        return _generation_model(await gateway.catalog.find(model_id, caller))
    except ModelNotFound:
        if not gateway.config.embedding_applications:
            raise
        return _embedding_model(await gateway.embedding_catalog.find(model_id, caller))


def _generation_model(model: ServedModel[GetModelResponse]) -> Model:
    info = model.info
    return Model(
        id=model.name, created=info.created, max_model_len=info.max_model_len, dimensions=None
    )


def _embedding_model(model: ServedModel[GetEmbeddingModelResponse]) -> Model:
    info = model.info
    return Model(
        id=model.name,
        created=info.created_s,
        max_model_len=info.max_input_tokens,
        dimensions=info.dimensions,
    )
