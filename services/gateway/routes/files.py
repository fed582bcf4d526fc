"""`/v1/files`: OpenAI's API for uploaded files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from orrery import methods
from orrery.v1 import file_pb2 as pb
from services.gateway.answers import bytes_answer, json_answer
from services.gateway.body import JsonRoute, validated
from services.gateway.deps import CallerDep, GatewayDep
from services.gateway.paging import PAGE_SIZE, Cursor, all_pages, cursor_page, list_document
from services.gateway.rendering.vector_stores import file_document
from services.gateway.routes.documentation import ERROR_RESPONSES, form_body
from services.gateway.schemas.files import File, FileDeleted, FileForm, FileList, FileQuery
from services.gateway.uploads import read_upload

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["files"], responses=ERROR_RESPONSES)

_FORM_FIELDS = tuple(field.alias or name for name, field in FileForm.model_fields.items())
_NAMES = {"data": "file", "name": "file", "id": "file_id"}


@router.post("/v1/files", response_model=File, openapi_extra=form_body(FileForm))
async def create_file(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Keeps a file, to be put into vector stores."""
    upload = await read_upload(request, _FORM_FIELDS)
    form = validated(FileForm, upload.fields)

    async def document() -> dict[str, Any]:
        message = pb.CreateFileRequest(
            name=upload.file_name, purpose=form.purpose, data=upload.data
        )
        response = await gateway.retrieval.call(methods.CREATE_FILE, message, caller, _NAMES)
        return file_document(response.file)

    return json_answer(document)


@router.get("/v1/files", response_model=FileList)
async def list_files(
    query: Annotated[FileQuery, Query()], gateway: GatewayDep, caller: CallerDep
) -> Response:
    """The files that are kept."""

    async def fetch(page_token: str) -> tuple[Sequence[pb.StoredFile], str]:
        request = pb.ListFilesRequest(
            page_size=PAGE_SIZE, page_token=page_token, purpose=query.purpose
        )
        response = await gateway.retrieval.call(methods.LIST_FILES, request, caller)
        return response.files, response.next_page_token

    async def document() -> dict[str, Any]:
        cursor = Cursor(after=query.after, limit=query.limit, order=query.order)
        page, has_more = cursor_page(await all_pages(fetch), cursor, lambda file: file.id)
        return list_document([file_document(file) for file in page], has_more)

    return json_answer(document)


@router.get("/v1/files/{file_id}", response_model=File)
async def retrieve_file(file_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """One file, without its content."""

    async def document() -> dict[str, Any]:
        request = pb.GetFileRequest(id=file_id)
        response = await gateway.retrieval.call(methods.GET_FILE, request, caller, _NAMES)
        return file_document(response.file)

    return json_answer(document)


@router.get(
    "/v1/files/{file_id}/content",
    responses={200: {"content": {"application/octet-stream": {}}, "description": "The bytes."}},
)
async def retrieve_file_content(file_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """A file as it was uploaded."""

    async def content() -> tuple[bytes, Sequence[tuple[bytes, bytes]]]:
        request = pb.GetFileContentRequest(id=file_id)
        response = await gateway.retrieval.call(methods.GET_FILE_CONTENT, request, caller, _NAMES)
        # Whatever somebody uploaded must not run in a browser as a page of ours.
        headers = (
            (b"content-type", b"application/octet-stream"),
            (b"content-disposition", b"attachment"),
            (b"x-content-type-options", b"nosniff"),
        )
        return response.data, headers

    return bytes_answer(content)


@router.delete("/v1/files/{file_id}", response_model=FileDeleted)
async def delete_file(file_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Removes a file; vector stores keep what was made of it."""

    async def document() -> dict[str, Any]:
        request = pb.DeleteFileRequest(id=file_id)
        await gateway.retrieval.call(methods.DELETE_FILE, request, caller, _NAMES)
        return {"id": file_id, "object": "file", "deleted": True}

    return json_answer(document)
