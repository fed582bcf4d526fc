"""`/v1/vector_stores/{id}/file_batches`: many files put into a vector store with one call."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from orrery.v1 import file_pb2
from services.gateway.answers import Written, json_answer, written_answer
from services.gateway.batches import FileBatch
from services.gateway.body import JsonRoute
from services.gateway.consistency import newest
from services.gateway.deps import CallerDep, ConsistencyDep, GatewayDep
from services.gateway.rendering.vector_stores import batch_document
from services.gateway.routes.documentation import ERROR_RESPONSES
from services.gateway.routes.vector_store_files import files_document
from services.gateway.schemas.vector_stores import (
    CreateBatchRequest,
    StoreFileQuery,
    VectorStoreFileBatch,
    VectorStoreFileList,
)
from services.gateway.stores import Stores, check_chunking

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["vector stores"], responses=ERROR_RESPONSES)

_BATCHES = "/v1/vector_stores/{vector_store_id}/file_batches"
_BATCH = _BATCHES + "/{batch_id}"


@router.post(_BATCHES, response_model=VectorStoreFileBatch)
async def create_batch(
    vector_store_id: str,
    body: CreateBatchRequest,
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """Puts files into a vector store; answers when all are read, or have failed to be."""

    async def document() -> Written:
        stores = Stores(gateway.retrieval, caller, token)
        chunking = (await stores.get(vector_store_id)).config.chunking
        field = "file_ids" if body.files is None else "files"
        for index, entry in enumerate(body.entries):
            where = "" if body.files is None else f"files[{index}]."
            check_chunking(entry.chunking_strategy, chunking, f"{where}chunking_strategy")
        file_ids = [entry.file_id for entry in body.entries]
        await stores.check_files(file_ids, field)
        files = [(entry.file_id, entry.attributes) for entry in body.entries]
        answers = await stores.attach_all(vector_store_id, files)
        attachments = [answer.attachment for answer in answers]
        batch = FileBatch(vector_store_id, int(time.time()), file_ids)
        return Written(
            _rendered(batch, attachments), newest(answer.consistency_token for answer in answers)
        )

    return written_answer(document)


@router.get(_BATCH, response_model=VectorStoreFileBatch)
async def retrieve_batch(
    vector_store_id: str, batch_id: str, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """A batch, with what has become of its files."""

    async def document() -> dict[str, Any]:
        batch = FileBatch.parse(vector_store_id, batch_id)
        return _rendered(batch, await _attachments(Stores(gateway.retrieval, caller), batch))

    return json_answer(document)


@router.post(_BATCH + "/cancel", response_model=VectorStoreFileBatch)
async def cancel_batch(
    vector_store_id: str, batch_id: str, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Returns the batch: it was complete when it was made, so nothing is left to cancel."""
    return await retrieve_batch(vector_store_id, batch_id, gateway, caller)


@router.get(_BATCH + "/files", response_model=VectorStoreFileList)
async def list_batch_files(
    vector_store_id: str,
    batch_id: str,
    query: Annotated[StoreFileQuery, Query()],
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """The files of a batch that are still in the vector store."""

    async def document() -> dict[str, Any]:
        batch = FileBatch.parse(vector_store_id, batch_id)
        stores = Stores(gateway.retrieval, caller, token)
        collection = await stores.get(vector_store_id)
        attachments = await _attachments(stores, batch)
        return files_document(attachments, collection.config.chunking, query)

    return json_answer(document)


async def _attachments(stores: Stores, batch: FileBatch) -> list[file_pb2.Attachment]:
    """Those of the batch's files that are still there, the newest first."""
    wanted = set(batch.file_ids)
    attachments = await stores.attachments(batch.vector_store_id)
    return [attachment for attachment in attachments if attachment.file_id in wanted]


def _rendered(batch: FileBatch, attachments: list[file_pb2.Attachment]) -> dict[str, Any]:
    total = len(batch.file_ids)
    return batch_document(batch.id, batch.vector_store_id, batch.created_at, attachments, total)
