"""`/v1/vector_stores/{id}/files`: OpenAI's API for the files of a vector store."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from orrery import methods
from orrery.v1 import file_pb2
from orrery.v1 import retrieval_pb2 as pb
from services.gateway.answers import Written, json_answer, written_answer
from services.gateway.body import JsonRoute
from services.gateway.deps import CallerDep, ConsistencyDep, GatewayDep
from services.gateway.paging import Cursor, cursor_page, list_document
from services.gateway.rendering.vector_stores import content_page, vector_store_file_document
from services.gateway.routes.documentation import ERROR_RESPONSES
from services.gateway.schemas.vector_stores import (
    AttachFileRequest,
    FileContentPage,
    StoreFileQuery,
    UpdateFileRequest,
    VectorStoreFile,
    VectorStoreFileDeleted,
    VectorStoreFileList,
)
from services.gateway.stores import Stores, check_chunking
from services.runtime.errors import ResourceNotFound

__all__ = ["files_document", "router"]

router = APIRouter(route_class=JsonRoute, tags=["vector stores"], responses=ERROR_RESPONSES)

_FILES = "/v1/vector_stores/{vector_store_id}/files"
_FILE = _FILES + "/{file_id}"


@router.post(_FILES, response_model=VectorStoreFile)
async def attach_file(
    vector_store_id: str,
    body: AttachFileRequest,
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """Puts a file into a vector store; answers when it is read, or has failed to be."""

    async def document() -> Written:
        stores = Stores(gateway.retrieval, caller, token)
        chunking = (await stores.get(vector_store_id)).config.chunking
        check_chunking(body.chunking_strategy, chunking, "chunking_strategy")
        answer = await stores.attach(vector_store_id, body.file_id, body.attributes)
        file = vector_store_file_document(answer.attachment, chunking)
        return Written(file, answer.consistency_token)

    return written_answer(document)


@router.get(_FILES, response_model=VectorStoreFileList)
async def list_attached_files(
    vector_store_id: str,
    query: Annotated[StoreFileQuery, Query()],
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """The files of a vector store."""

    async def document() -> dict[str, Any]:
        stores = Stores(gateway.retrieval, caller, token)
        collection = await stores.get(vector_store_id)
        attachments = await stores.attachments(vector_store_id)
        return files_document(attachments, collection.config.chunking, query)

    return json_answer(document)


def files_document(
    newest_first: list[file_pb2.Attachment], chunking: pb.ChunkingConfig, query: StoreFileQuery
) -> dict[str, Any]:
    """One page of files, those of one status where it is asked for."""
    files = [vector_store_file_document(attachment, chunking) for attachment in newest_first]
    wanted = [file for file in files if query.filter in (None, file["status"])]
    cursor = Cursor(query.after, query.before, query.limit, query.order)
    page, has_more = cursor_page(wanted, cursor, lambda file: str(file["id"]))
    return list_document(page, has_more)


@router.get(_FILE, response_model=VectorStoreFile)
async def retrieve_attached_file(
    vector_store_id: str,
    file_id: str,
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """One file of a vector store."""

    async def document() -> dict[str, Any]:
        stores = Stores(gateway.retrieval, caller, token)
        collection = await stores.get(vector_store_id)
        attachment = await stores.attachment(vector_store_id, file_id)
        return vector_store_file_document(attachment, collection.config.chunking)

    return json_answer(document)


@router.post(_FILE, response_model=VectorStoreFile)
async def update_attached_file(
    vector_store_id: str,
    file_id: str,
    body: UpdateFileRequest,
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """Changes a file's attributes: it is read in again with the new ones."""

    async def document() -> Written:
        stores = Stores(gateway.retrieval, caller, token)
        collection = await stores.get(vector_store_id)
        await stores.attachment(vector_store_id, file_id)  # one that is not there is not put in
        answer = await stores.attach(vector_store_id, file_id, body.attributes)
        file = vector_store_file_document(answer.attachment, collection.config.chunking)
        return Written(file, answer.consistency_token)

    return written_answer(document)


@router.delete(_FILE, response_model=VectorStoreFileDeleted)
async def detach_file(
    vector_store_id: str, file_id: str, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Takes a file out of a vector store; the file stays."""

    async def document() -> Written:
        request = file_pb2.DetachFileRequest(collection=vector_store_id, file_id=file_id)
        response = await gateway.retrieval.call(methods.DETACH_FILE, request, caller)
        deleted = {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}
        return Written(deleted, response.consistency_token)

    return written_answer(document)


@router.get(_FILE + "/content", response_model=FileContentPage)
async def retrieve_attached_content(
    vector_store_id: str,
    file_id: str,
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """The text that was read from a file."""

    async def document() -> dict[str, Any]:
        request = pb.GetRequest(
            collection=vector_store_id,
            document_ids=[file_id],
            include_chunks=True,
            consistency_token=token,
        )
        response = await gateway.retrieval.call(methods.GET_DOCUMENTS, request, caller)
        if not response.documents:
            raise ResourceNotFound("there is no such file in this vector store", field="file_id")
        return content_page(response.documents[0].chunks)

    return json_answer(document)
