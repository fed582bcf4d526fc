"""`/v1/vector_stores`: OpenAI's API over collections.

A vector store is a collection: its id is the collection's name, its name the title.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from orrery import methods
from orrery.v1 import retrieval_pb2 as pb
from services.gateway.answers import Written, json_answer, written_answer
from services.gateway.body import JsonRoute
from services.gateway.concurrency import map_bounded
from services.gateway.consistency import newest
from services.gateway.deps import CallerDep, ConsistencyDep, Gateway, GatewayDep
from services.gateway.field_names import as_client_wrote
from services.gateway.paging import Cursor, cursor_page, list_document
from services.gateway.rendering.vector_stores import search_page, vector_store_document
from services.gateway.routes.documentation import ERROR_RESPONSES
from services.gateway.schemas.files import CursorQuery
from services.gateway.schemas.vector_stores import (
    CreateVectorStoreRequest,
    SearchPage,
    SearchRequest,
    UpdateVectorStoreRequest,
    VectorStore,
    VectorStoreDeleted,
    VectorStoreList,
)
from services.gateway.stores import Stores, created_ms, created_ms_of_id, new_id
from services.gateway.translate.filters import metadata_filter
from services.gateway.translate.retrieval import RERANK_METHODS
from services.gateway.upstream import Caller, error_of_item

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["vector stores"], responses=ERROR_RESPONSES)

_NAMES = {
    "title": "name",
    "config.chunking": "chunking_strategy.static",
    "config.chunking.max_tokens": "chunking_strategy.static.max_chunk_size_tokens",
    "config.chunking.overlap_tokens": "chunking_strategy.static.chunk_overlap_tokens",
}
_SEARCH_NAMES = {
    "collection": "vector_store_id",
    "queries": "query",
    "filter": "filters",
    "options.filter": "filters",
    "options.k": "max_num_results",
    "options.min_score": "ranking_options.score_threshold",
    "options.rerank": "ranking_options.ranker",
    "options.fusion": "ranking_options.hybrid_search",
}
_RANKERS = {
    None: None,
    "auto": None,
    "none": None,
    "cross_encoder": "cross_encoder",
    "bi_encoder": "bi_encoder",
}
_MAX_RESULTS = 10


@router.post("/v1/vector_stores", response_model=VectorStore)
async def create_vector_store(
    body: CreateVectorStoreRequest, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Creates a vector store and puts files into it; answers when they are read."""

    async def document() -> Written:
        stores = Stores(gateway.retrieval, caller)
        file_ids = body.file_ids or []
        await stores.check_files(file_ids, "file_ids")
        token, collection = await _create(gateway, caller, body)
        attached = await stores.attach_all(
            collection.name, [(file_id, None) for file_id in file_ids]
        )
        token = newest((token, *(answer.consistency_token for answer in attached)))
        if attached:
            collection = await Stores(gateway.retrieval, caller, token).get(collection.name)
        files = [answer.attachment for answer in attached]
        return Written(vector_store_document(collection, files), token)

    return written_answer(document)


async def _create(
    gateway: Gateway, caller: Caller, body: CreateVectorStoreRequest
) -> tuple[str, pb.Collection]:
    config = pb.CollectionConfig()
    strategy = body.chunking_strategy
    if strategy is not None and strategy.static is not None:
        config.chunking.max_tokens = strategy.static.max_chunk_size_tokens
        config.chunking.overlap_tokens = strategy.static.chunk_overlap_tokens
    request = pb.CreateCollectionRequest(
        name=new_id(),
        title=body.name or "",
        config=config,
        metadata=body.metadata,
        exist_ok=True,  # only a repetition of this very call can have made it
    )
    response = await gateway.retrieval.call(methods.CREATE_COLLECTION, request, caller, _NAMES)
    return response.consistency_token, response.collection


@router.get("/v1/vector_stores", response_model=VectorStoreList)
async def list_vector_stores(
    query: Annotated[CursorQuery, Query()],
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """All vector stores, which all collections are."""

    async def document() -> dict[str, Any]:
        stores = Stores(gateway.retrieval, caller, token)
        collections = await stores.all()
        cursor = Cursor(query.after, query.before, query.limit, query.order)

        def place_of_missing(vector_store_id: str) -> int | None:
            made_ms = created_ms_of_id(vector_store_id)
            if made_ms is None:
                return None
            keys = [(-created_ms(entry)) for entry in collections]
            return bisect_left(keys, -made_ms)

        page, has_more = cursor_page(collections, cursor, lambda c: c.name, place_of_missing)
        attachments = await map_bounded(stores.attachments, [entry.name for entry in page])
        documents = map(vector_store_document, page, attachments)
        return list_document(list(documents), has_more)

    return json_answer(document)


@router.get("/v1/vector_stores/{vector_store_id}", response_model=VectorStore)
async def retrieve_vector_store(
    vector_store_id: str, gateway: GatewayDep, caller: CallerDep, token: ConsistencyDep
) -> Response:
    """One vector store."""

    async def document() -> dict[str, Any]:
        stores = Stores(gateway.retrieval, caller, token)
        collection = await stores.get(vector_store_id)
        return vector_store_document(collection, await stores.attachments(vector_store_id))

    return json_answer(document)


@router.post("/v1/vector_stores/{vector_store_id}", response_model=VectorStore)
async def update_vector_store(
    vector_store_id: str,
    body: UpdateVectorStoreRequest,
    gateway: GatewayDep,
    caller: CallerDep,
) -> Response:
    """Changes name and metadata."""

    async def document() -> Written:
        values = body.metadata
        request = pb.UpdateCollectionRequest(
            name=vector_store_id,
            title=body.name,
            metadata=None if values is None else pb.CollectionMetadata(values=values),
        )
        response = await gateway.retrieval.call(methods.UPDATE_COLLECTION, request, caller, _NAMES)
        files = await Stores(gateway.retrieval, caller).attachments(vector_store_id)
        return Written(
            vector_store_document(response.collection, files), response.consistency_token
        )

    return written_answer(document)


@router.delete("/v1/vector_stores/{vector_store_id}", response_model=VectorStoreDeleted)
async def delete_vector_store(
    vector_store_id: str, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Removes a vector store; the files stay."""

    async def document() -> Written:
        request = pb.DeleteCollectionRequest(name=vector_store_id)
        response = await gateway.retrieval.call(methods.DELETE_COLLECTION, request, caller)
        deleted = {"id": vector_store_id, "object": "vector_store.deleted", "deleted": True}
        return Written(deleted, response.consistency_token)

    return written_answer(document)


@router.post("/v1/vector_stores/{vector_store_id}/search", response_model=SearchPage)
async def search_vector_store(
    vector_store_id: str,
    body: SearchRequest,
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """Searches by meaning and by words. Of several queries, the best of all results."""

    async def document() -> dict[str, Any]:
        k = body.max_num_results or _MAX_RESULTS
        request = pb.SearchBatchRequest(
            collection=vector_store_id,
            queries=[pb.SearchQuery(text=text) for text in body.query],
            options=_search_options(body, k),
            consistency_token=token,
        )
        response = await gateway.retrieval.call(
            methods.SEARCH_BATCH, request, caller, _SEARCH_NAMES
        )
        return search_page(body.query, _best(response, k))

    return json_answer(document)


def _search_options(body: SearchRequest, k: int) -> pb.SearchOptions:
    ranking = body.ranking_options
    options = pb.SearchOptions(
        k=k,
        filter=metadata_filter(body.filters),
        min_score=None if ranking is None else ranking.score_threshold,
        rerank=RERANK_METHODS[None if ranking is None else _RANKERS[ranking.ranker]],
    )
    if ranking is not None and ranking.hybrid_search is not None:
        options.fusion.dense_weight = ranking.hybrid_search.embedding_weight
        options.fusion.sparse_weight = ranking.hybrid_search.text_weight
    return options


def _best(response: pb.SearchBatchResponse, k: int) -> list[pb.Hit]:
    """Each chunk once, with its best score over the queries, which rank on one scale."""
    best: dict[str, pb.Hit] = {}
    for result in response.results:
        if result.HasField("error"):
            raise as_client_wrote(error_of_item(result.error), _SEARCH_NAMES)
        for hit in result.hits:
            known = best.get(hit.chunk.id)
            if known is None or hit.score > known.score:
                best[hit.chunk.id] = hit
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.chunk.id))[:k]
