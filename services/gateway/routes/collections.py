"""`/v1/collections`, `/v1/collections/{name}`, its rebuilding, and snapshots of them all."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from orrery import methods
from orrery.v1 import retrieval_pb2 as pb
from services.gateway.answers import Written, json_answer, written_answer
from services.gateway.body import JsonRoute
from services.gateway.deps import CallerDep, ConsistencyDep, GatewayDep
from services.gateway.rendering.retrieval import collection_document
from services.gateway.routes.documentation import ERROR_RESPONSES
from services.gateway.schemas.collections import (
    Collection,
    CollectionDeleted,
    CollectionList,
    CreateCollectionRequest,
    PageQuery,
    Snapshot,
    UpdateCollectionRequest,
)
from services.gateway.translate.retrieval import collection_config

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["collections"], responses=ERROR_RESPONSES)

_NAMES = {"config.index_type": "config.index.type", "config.index_parameters": "config.index"}


@router.post("/v1/collections", response_model=Collection, response_model_exclude_none=True)
async def create_collection(
    body: CreateCollectionRequest, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Creates a collection."""

    async def document() -> Written:
        request = pb.CreateCollectionRequest(
            name=body.name,
            title=body.title or "",
            config=collection_config(body.config),
            metadata=body.metadata,
            exist_ok=bool(body.exist_ok),
        )
        response = await gateway.retrieval.call(methods.CREATE_COLLECTION, request, caller, _NAMES)
        fields = collection_document(response.collection)
        return Written.telling(fields, response.consistency_token)

    return written_answer(document)


@router.get("/v1/collections", response_model=CollectionList)
async def list_collections(
    query: Annotated[PageQuery, Query()],
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """All collections, by name."""

    async def document() -> dict[str, Any]:
        request = pb.ListCollectionsRequest(
            page_size=query.page_size,
            page_token=query.page_token,
            consistency_token=query.consistency_token or token,
        )
        response = await gateway.retrieval.call(methods.LIST_COLLECTIONS, request, caller)
        return {
            "object": "list",
            "data": [collection_document(collection) for collection in response.collections],
            "next_page_token": response.next_page_token or None,
        }

    return json_answer(document)


@router.get("/v1/collections/{name}", response_model=Collection)
async def get_collection(
    name: str, gateway: GatewayDep, caller: CallerDep, token: ConsistencyDep
) -> Response:
    """One collection and its figures."""

    async def document() -> dict[str, Any]:
        request = pb.GetCollectionRequest(name=name, consistency_token=token)
        response = await gateway.retrieval.call(methods.GET_COLLECTION, request, caller)
        return collection_document(response.collection)

    return json_answer(document)


@router.patch("/v1/collections/{name}", response_model=Collection)
async def update_collection(
    name: str, body: UpdateCollectionRequest, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Changes title and metadata; how vectors are made and kept stays as it was created."""

    async def document() -> Written:
        values = body.metadata
        request = pb.UpdateCollectionRequest(
            name=name,
            title=body.title,
            metadata=None if values is None else pb.CollectionMetadata(values=values),
        )
        response = await gateway.retrieval.call(methods.UPDATE_COLLECTION, request, caller)
        fields = collection_document(response.collection)
        return Written.telling(fields, response.consistency_token)

    return written_answer(document)


@router.delete("/v1/collections/{name}", response_model=CollectionDeleted)
async def delete_collection(name: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Removes a collection and all that is in it."""

    async def document() -> Written:
        request = pb.DeleteCollectionRequest(name=name)
        response = await gateway.retrieval.call(methods.DELETE_COLLECTION, request, caller)
        fields = {
            "name": name,
            "object": "collection.deleted",
            "deleted": True,
        }
        return Written.telling(fields, response.consistency_token)

    return written_answer(document)


@router.post("/v1/collections/{name}/rebuild", response_model=Collection)
async def rebuild(name: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Merges a collection's segments into one and drops what was deleted. Takes no body."""

    async def document() -> dict[str, Any]:
        request = pb.RebuildRequest(collection=name)
        response = await gateway.retrieval.call(methods.REBUILD, request, caller)
        return collection_document(response.collection)

    return json_answer(document)


@router.post("/v1/snapshot", response_model=Snapshot)
async def snapshot(gateway: GatewayDep, caller: CallerDep) -> Response:
    """Writes a snapshot of all collections now. Takes no body."""

    async def document() -> dict[str, Any]:
        request = pb.SnapshotRequest()
        response = await gateway.retrieval.call(methods.SNAPSHOT, request, caller)
        return {
            "object": "snapshot",
            "log_position": response.log_position,
            "num_collections": response.num_collections,
            "num_chunks": response.num_chunks,
            "num_bytes": response.num_bytes,
        }

    return json_answer(document)
