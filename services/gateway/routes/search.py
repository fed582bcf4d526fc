"""`POST /v1/search`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from orrery import methods
from orrery.v1 import retrieval_pb2 as pb
from services.gateway.answers import json_answer
from services.gateway.body import JsonRoute
from services.gateway.deps import CallerDep, ConsistencyDep, GatewayDep
from services.gateway.pictures import decoded_pictures
from services.gateway.rendering.retrieval import (
    OPTION_NAMES,
    search_batch_document,
    search_document,
)
from services.gateway.routes.documentation import ERROR_RESPONSES
from services.gateway.schemas.search import QueryInput, SearchAnswer, SearchRequest
from services.gateway.translate.retrieval import search_options, search_query

__all__ = ["router"]


router = APIRouter(route_class=JsonRoute, tags=["search"], responses=ERROR_RESPONSES)


@router.post("/v1/search", response_model=SearchAnswer, response_model_exclude_none=True)
async def search(
    body: SearchRequest, gateway: GatewayDep, caller: CallerDep, token: ConsistencyDep
) -> Response:
    """Searches a collection by meaning, by words, or both: one query or many at once."""
    consistency_token = body.consistency_token or token
    text, vector = body.include_text is not False, bool(body.include_vectors)

    async def one() -> dict[str, Any]:
        assert body.query is not None
        request = pb.SearchRequest(
            collection=body.collection,
            query=(await _messages({"query": body.query}))[0],
            options=search_options(body),
            consistency_token=consistency_token,
            explain=bool(body.explain),
        )
        response = await gateway.retrieval.call(methods.SEARCH, request, caller, OPTION_NAMES)
        return search_document(response, text=text, vector=vector, explain=bool(body.explain))

    async def many() -> dict[str, Any]:
        assert body.queries is not None
        request = pb.SearchBatchRequest(
            collection=body.collection,
            queries=await _messages(
                {f"queries[{index}]": query for index, query in enumerate(body.queries)}
            ),
            options=search_options(body),
            consistency_token=consistency_token,
        )
        response = await gateway.retrieval.call(methods.SEARCH_BATCH, request, caller, OPTION_NAMES)
        return search_batch_document(response, text=text, vector=vector)

    return json_answer(one if body.query is not None else many)


async def _messages(queries: Mapping[str, QueryInput]) -> list[pb.SearchQuery]:
    """The queries, by the field that each stands in, with their pictures out of base64."""
    encoded = {field: query.image for field, query in queries.items() if query.image is not None}
    images = await decoded_pictures(
        [(f"{field}.image", picture) for field, picture in encoded.items()]
    )
    image_of = dict(zip(encoded, images, strict=True))
    return [search_query(query, image_of.get(field)) for field, query in queries.items()]
