"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from fastapi import APIRouter

from orrery.v1.embedding_pb2 import GetEmbeddingModelResponse
from orrery.v1.generation_pb2 import GetModelResponse
from orrery.v1.image_pb2 import GetImageModelResponse
from services.gateway.catalog import ServedModel
from services.gateway.deps import CallerDep, GatewayDep
from services.gateway.pictures import embeds_pictures
from services.gateway.rendering.images import scheduler_name
from services.gateway.rendering.values import decimal
from services.gateway.routes.documentation import ERROR_RESPONSES
from services.gateway.schemas.models import ImageModel, Model, ModelList
from services.runtime.errors import ModelNotFound

__all__ = ["router"]

router = APIRouter(tags=["models"], responses=ERROR_RESPONSES)


@router.get("/v1/models", response_model_exclude_none=True)
async def list_models(gateway: GatewayDep, caller: CallerDep) -> ModelList:
    """Every model that is served at this moment: those that write, that embed, that paint."""
    generating = await gateway.catalog.models(caller)
    embedding = await gateway.embedding_catalog.models(caller)
    painting = await gateway.image_catalog.models(caller)
    return ModelList(
        data=[
            *map(_generation_model, generating),
            *map(_embedding_model, embedding),
            *map(_image_model, painting),
        ]
    )


@router.get("/v1/models/{model_id:path}", response_model_exclude_none=True)
async def retrieve_model(model_id: str, gateway: GatewayDep, caller: CallerDep) -> Model:
    """One model, by its name, an alias or its application's name."""
    config = gateway.config
    try:
        return _generation_model(await gateway.catalog.find(model_id, caller))
    except ModelNotFound:
        if not config.embedding_applications and not config.image_applications:
            raise
    try:
        return _embedding_model(await gateway.embedding_catalog.find(model_id, caller))
    except ModelNotFound:
        if not config.image_applications:
            raise
    return _image_model(await gateway.image_catalog.find(model_id, caller))


def _generation_model(model: ServedModel[GetModelResponse]) -> Model:
    info = model.info
    return Model(id=model.name, created=info.created, max_model_len=info.max_model_len)


def _embedding_model(model: ServedModel[GetEmbeddingModelResponse]) -> Model:
    info = model.info
    return Model(
        id=model.name,
        created=info.created_s,
        max_model_len=info.max_input_tokens,
        dimensions=info.dimensions,
        modalities=["text", "image"] if embeds_pictures(info) else ["text"],
    )


def _image_model(model: ServedModel[GetImageModelResponse]) -> Model:
    info = model.info
    return Model(
        id=model.name,
        created=info.created_s,
        max_model_len=info.max_prompt_tokens,
        image=ImageModel(
            default_size=f"{info.default_width}x{info.default_height}",
            size_multiple=info.size_multiple,
            max_width=info.max_width,
            max_height=info.max_height,
            max_pixels=info.max_pixels,
            default_steps=info.default_num_steps,
            max_steps=info.max_num_steps,
            default_guidance_scale=decimal(info.default_guidance_scale),
            max_guidance_scale=decimal(info.max_guidance_scale),
            default_scheduler=scheduler_name(info.default_scheduler),
            schedulers=[scheduler_name(scheduler) for scheduler in info.schedulers],
            default_karras_sigmas=info.default_karras_sigmas,
            default_strength=decimal(info.default_strength),
            max_n=info.max_n,
            can_rank=info.can_rank,
            loras=list(info.loras),
        ),
    )
