"""`POST /v1/images/generations` and `/v1/images/edits`; why there is no `.../variations`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from orrery.v1 import image_pb2 as pb
from orrery.v1.common_pb2 import ImageContent
from services.gateway import images, sse
from services.gateway.answers import JSON_TYPE, Header, bytes_answer, event_answer, json_body
from services.gateway.body import JsonRoute, validated
from services.gateway.catalog import ServedModel
from services.gateway.deps import CallerDep, Gateway, GatewayDep
from services.gateway.errors import RequestRefused, error_event_body
from services.gateway.images import ImageJob
from services.gateway.middleware import note_user
from services.gateway.pictures import INLINE_BYTES, painted_mask
from services.gateway.rendering.images import ImageEvents, images_document
from services.gateway.routes.documentation import FormFile, form_body, stream_response
from services.gateway.schemas.images import (
    ImageEditForm,
    ImageGenerationRequest,
    ImageParameters,
    ImagesAnswer,
)
from services.gateway.translate.images import IMAGE_NAMES, edit_request, generate_request
from services.gateway.uploads import Form, FormShape, read_form
from services.gateway.upstream import Caller, Service
from services.runtime.errors import InvalidRequest, OrreryError
from services.runtime.offload import offload_if_large
from services.runtime.pictures import PictureLimits

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["images"])

_STREAM = stream_response(
    "The pictures. With `stream: true`, events: `{kind}.partial_image` for each picture on the way "
    "and `{kind}.completed` for each that is done, where kind is `image_generation` or "
    "`image_edit`, and at the end `[DONE]`; the data of each has its name as `type`. A failure "
    "after the first is an event `error`, and there is no `[DONE]`."
)
_EDIT_SHAPE = FormShape(("image", "mask"), ImageEditForm.model_fields, lists=("image",))


@router.post(
    "/v1/images/generations",
    response_model=ImagesAnswer,
    response_model_exclude_none=True,
    responses=_STREAM,
)
async def generate_images(
    body: ImageGenerationRequest, request: Request, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Makes pictures from a text. With `stream: true` they come as server-sent events."""
    note_user(request, body.user)

    async def job() -> ImageJob:
        model = await _model(gateway, body.model, caller)
        service = Service("image", model.application, gateway.upstream)
        return ImageJob(service, generate_request(body, model.info), caller, IMAGE_NAMES)

    return _answer(body, "image_generation", job)


@router.post(
    "/v1/images/edits",
    response_model=ImagesAnswer,
    response_model_exclude_none=True,
    responses=_STREAM,
    openapi_extra=form_body(ImageEditForm, FormFile("image"), FormFile("mask", required=False)),
)
async def edit_image(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Changes a picture by a text: the whole of it, or what a mask leaves transparent."""
    upload = await read_form(request, _EDIT_SHAPE)
    form = validated(ImageEditForm, upload.filled_fields)
    note_user(request, form.user)
    image = _one_image(upload)

    async def job() -> ImageJob:
        model = await _model(gateway, form.model, caller)
        service = Service("image", model.application, gateway.upstream)
        mask = await _mask(gateway, upload, model.info)
        message = edit_request(form, model.info, image, mask)
        return ImageJob(service, message, caller, IMAGE_NAMES)

    return _answer(form, "image_edit", job)


@router.post("/v1/images/variations", include_in_schema=False)
async def vary_image() -> Response:
    """OpenAI's oldest models alone have it."""
    raise RequestRefused(
        HTTPStatus.NOT_FOUND,
        "pictures are not varied without a prompt; /v1/images/edits changes a picture by one, "
        "from a little (a small strength) to wholly",
        code="not_found",
    )


def _one_image(upload: Form) -> ImageContent:
    file = upload.file("image")
    number = len(upload.files["image"])
    if number > 1:
        raise InvalidRequest(f"image: expected one picture, got {number}", field="image")
    return ImageContent(data=file.data, media_type=file.media_type)


async def _mask(
    gateway: Gateway, upload: Form, info: pb.GetImageModelResponse
) -> ImageContent | None:
    if "mask" not in upload.files:
        return None
    limits = PictureLimits(max_bytes=info.max_image_bytes, max_pixels=info.max_image_pixels)
    return await painted_mask(upload.file("mask").data, limits, "mask", gateway.mask_threads)


async def _model(
    gateway: Gateway, name: str | None, caller: Caller
) -> ServedModel[pb.GetImageModelResponse]:
    """The model that is meant; the first where none is named."""
    catalog = gateway.image_catalog
    return await (catalog.first(caller) if name is None else catalog.find(name, caller))


def _answer(
    asked: ImageParameters,
    kind: Literal["image_generation", "image_edit"],
    make_job: Callable[[], Awaitable[ImageJob]],
) -> Response:
    async def content() -> tuple[bytes, Sequence[Header]]:
        made = await images.complete(await make_job())
        size = sum(len(image.png) for image in made.images)
        body = await offload_if_large(
            size, lambda: json_body(images_document(*made)), above=INLINE_BYTES
        )
        return body, (JSON_TYPE,)

    async def begin() -> AsyncGenerator[bytes, None]:
        return _events(await make_job(), ImageEvents(kind, asked.num_returned))

    return event_answer(begin, _error_event) if asked.stream else bytes_answer(content)


async def _events(job: ImageJob, events: ImageEvents) -> AsyncGenerator[bytes, None]:
    async with aclosing(images.stream(job)) as answers:
        async for answer in answers:
            # A picture in line may yet be refused, or run out of time: with a status of its own.
            if answer.HasField("progress") and answer.progress.step == 0:
                continue
            render = partial(events.render, answer)
            yield await offload_if_large(answer.ByteSize(), render, above=INLINE_BYTES)


def _error_event(error: OrreryError) -> bytes:
    return sse.event({"type": "error", **error_event_body(error)}, "error")
