"""`POST /v1/images/classify`: which of the caller's labels fits a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from orrery import methods
from orrery.v1.common_pb2 import ImageContent
from orrery.v1.embedding_pb2 import GetEmbeddingModelResponse
from services.gateway.answers import json_answer
from services.gateway.body import JsonRoute, media_type_of, read_json, validated
from services.gateway.catalog import ServedModel
from services.gateway.deps import CallerDep, Gateway, GatewayDep
from services.gateway.middleware import note_user
from services.gateway.pictures import (
    check_embeds_pictures,
    decoded_pictures,
    embeds_pictures,
)
from services.gateway.rendering.images import classification_document
from services.gateway.routes.documentation import ERROR_RESPONSES, FormFile, either_body
from services.gateway.schemas.classification import (
    ClassificationAnswer,
    ClassificationForm,
    ClassificationParameters,
    ClassificationRequest,
)
from services.gateway.schemas.pictures import EncodedPicture
from services.gateway.translate.images import classify_request
from services.gateway.uploads import FORM, FormShape, read_form
from services.gateway.upstream import Caller, Service

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["images"], responses=ERROR_RESPONSES)

_LISTS = ("image", "labels", "templates")
# What the service calls the one picture of a request.
_ONE_IMAGE = {"images[0]": "image", "images": "image"}
_SHAPE = FormShape(("image",), ClassificationForm.model_fields, lists=_LISTS)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request in one of its forms: pictures as they are, or still as text.

    `names` says what the client called them.
    """

    body: ClassificationParameters
    names: Mapping[str, str]
    images: Sequence[ImageContent] = ()
    encoded: Sequence[tuple[str, EncodedPicture]] = ()


@router.post(
    "/v1/images/classify",
    response_model=ClassificationAnswer,
    openapi_extra=either_body(
        ClassificationRequest, ClassificationForm, FormFile("image", is_list=True)
    ),
)
async def classify_images(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Says which of the labels fits each picture; the model need not have been trained for them."""
    asked = await (_read_form if media_type_of(request) == FORM else _read_json)(request)
    note_user(request, asked.body.user)

    async def document() -> dict[str, Any]:
        model = await _model(gateway, asked.body.model, caller)
        images = asked.images or await decoded_pictures(asked.encoded, model.info.max_image_bytes)
        service = Service("embedding", model.application, gateway.upstream)
        message = classify_request(asked.body, model.name, images)
        response = await service.call(methods.CLASSIFY, message, caller, asked.names)
        return classification_document(response)

    return json_answer(document)


async def _read_json(request: Request) -> _Asked:
    body = await read_json(request, ClassificationRequest)
    if body.images is not None:
        pictures = [(f"images[{index}]", picture) for index, picture in enumerate(body.images)]
        return _Asked(body, {}, encoded=pictures)
    assert body.image is not None
    return _Asked(body, _ONE_IMAGE, encoded=[("image", body.image)])


async def _read_form(request: Request) -> _Asked:
    form = await read_form(request, _SHAPE)
    body = validated(ClassificationForm, form.filled_fields)
    form.file("image")  # there has to be one
    images = [
        ImageContent(data=file.data, media_type=file.media_type) for file in form.files["image"]
    ]
    return _Asked(body, _ONE_IMAGE if len(images) == 1 else {"images": "image"}, images=images)


async def _model(
    gateway: Gateway, name: str | None, caller: Caller
) -> ServedModel[GetEmbeddingModelResponse]:
    """The model that is meant; the first that embeds pictures where none is named."""
    if name is None:
        return await gateway.embedding_catalog.first(caller, embeds_pictures)
    model = await gateway.embedding_catalog.find(name, caller)
    check_embeds_pictures(model, "model")
    return model
