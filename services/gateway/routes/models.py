"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from fastapi import APIRouter

from services.gateway.catalog import ServedModel
from services.gateway.deps import CallerDep, GatewayDep
from services.gateway.routes.documentation import ERROR_RESPONSES
from services.gateway.schemas.models import Model, ModelList

__all__ = ["router"]

router = APIRouter(tags=["models"], responses=ERROR_RESPONSES)


@router.get("/v1/models")
async def list_models(gateway: GatewayDep, caller: CallerDep) -> ModelList:
    """Every model that is served at this moment."""
    models = await gateway.catalog.models(caller)
    return ModelList(data=[_model(model) for model in models])


@router.get("/v1/models/{model_id:path}")
async def retrieve_model(model_id: str, gateway: GatewayDep, caller: CallerDep) -> Model:
    """One model, by its name, an alias or its application's name."""
    return _model(await gateway.catalog.find(model_id, caller))


def _model(model: ServedModel) -> Model:
    return Model(id=model.name, created=model.info.created, max_model_len=model.info.max_model_len)
