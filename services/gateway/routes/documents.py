"""Documents of a collection: in, listed, read, out."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from orrery import methods
from orrery.v1 import retrieval_pb2 as pb
from services.gateway.answers import Written, json_answer, written_answer
from services.gateway.body import JsonRoute, media_type_of, read_json, validated
from services.gateway.consistency import newest
from services.gateway.deps import CallerDep, ConsistencyDep, Gateway, GatewayDep
from services.gateway.errors import RequestRefused
from services.gateway.field_names import as_client_wrote
from services.gateway.rendering.retrieval import (
    DOCUMENT_NAMES,
    stored_document,
    upserted_document,
)
from services.gateway.routes.documentation import ERROR_RESPONSES, either_body
from services.gateway.schemas.documents import (
    DeleteDocumentsRequest,
    DocumentDeleted,
    DocumentList,
    DocumentQuery,
    DocumentsDeleted,
    ListDocumentsQuery,
    StoredDocument,
    UpsertAnswer,
    UpsertForm,
    UpsertRequest,
)
from services.gateway.schemas.filters import MetadataFilter
from services.gateway.translate.filters import metadata_filter, metadata_values
from services.gateway.translate.retrieval import document as to_document
from services.gateway.uploads import FORM, Upload, read_upload
from services.gateway.upstream import Caller, error_of_item
from services.runtime.errors import DependencyDown, InvalidRequest, ResourceNotFound

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["documents"], responses=ERROR_RESPONSES)

_FILTER: TypeAdapter[Any] = TypeAdapter(MetadataFilter)


@router.post(
    "/v1/collections/{name}/documents",
    response_model=UpsertAnswer,
    openapi_extra=either_body(UpsertRequest, UpsertForm),
)
async def upsert_documents(
    name: str, request: Request, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Puts documents in: many as JSON, or one file as a form.

    Each has its own outcome, and one that cannot be read does not disturb the others. Of a form,
    whose one file cannot be read, the answer is that error.
    """
    if media_type_of(request) == FORM:
        upload = await read_upload(request, UpsertForm.model_fields)
        documents, alone = [_uploaded(upload)], True
    else:
        body = await read_json(request, UpsertRequest)
        documents, alone = [to_document(entry) for entry in body.documents], False

    async def document() -> Written:
        answers = await _upsert(gateway, caller, name, documents)
        rendered = [upserted_document(answer) for answer in answers]
        if alone and answers[0].HasField("error"):
            raise as_client_wrote(error_of_item(answers[0].error), DOCUMENT_NAMES)
        counts = Counter(entry["status"] for entry in rendered)
        fields = {
            "object": "list",
            "data": rendered,
            "counts": {
                status: counts[status] for status in ("added", "replaced", "unchanged", "failed")
            },
        }
        return Written.telling(fields, newest(answer.consistency_token for answer in answers))

    return written_answer(document)


async def _upsert(
    gateway: Gateway, caller: Caller, name: str, documents: Sequence[pb.Document]
) -> list[pb.UpsertResponse]:
    async def requests() -> AsyncIterator[pb.UpsertRequest]:
        for entry in documents:
            yield pb.UpsertRequest(collection=name, document=entry)

    answers = await gateway.retrieval.exchange(methods.UPSERT, requests(), caller)
    if len(answers) != len(documents):  # one that is being stopped may end a stream as if well
        raise DependencyDown(
            "the retrieval service stopped before it had answered for every document",
            retry_after_s=1.0,
        )
    return answers


def _uploaded(upload: Upload) -> pb.Document:
    form = validated(UpsertForm, upload.fields)
    document_id = form.id or upload.file_name
    if not document_id:
        raise InvalidRequest("id: expected an id, or a file with a name", field="id")
    return pb.Document(
        id=document_id,
        title=form.title,
        file=pb.FileContent(data=upload.data, name=upload.file_name, media_type=upload.media_type),
        metadata=metadata_values(form.metadata),
    )


@router.get("/v1/collections/{name}/documents", response_model=DocumentList)
async def list_documents(
    name: str,
    query: Annotated[ListDocumentsQuery, Query()],
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """A collection's documents, by id, without their chunks."""

    async def document() -> dict[str, Any]:
        request = pb.ListDocumentsRequest(
            collection=name,
            page_size=query.page_size,
            page_token=query.page_token,
            filter=_filter_of_query(query.filter),
            consistency_token=query.consistency_token or token,
        )
        response = await gateway.retrieval.call(methods.LIST_DOCUMENTS, request, caller)
        return {
            "object": "list",
            "data": [stored_document(entry) for entry in response.documents],
            "next_page_token": response.next_page_token or None,
            "index_generation": response.index_generation,
        }

    return json_answer(document)


def _filter_of_query(text: str | None) -> pb.Filter | None:
    if text is None:
        return None
    try:
        return metadata_filter(_FILTER.validate_python(orjson.loads(text)))
    except orjson.JSONDecodeError:
        message = "filter: expected JSON"
    except ValidationError as error:
        message = f"filter: {error.errors()[0]['msg']}"
    raise RequestRefused(HTTPStatus.BAD_REQUEST, message, param="filter", code="invalid_value")


@router.get(
    "/v1/collections/{name}/documents/{document_id:path}",
    response_model=StoredDocument,
    response_model_exclude_none=True,
)
async def get_document(
    name: str,
    document_id: str,
    query: Annotated[DocumentQuery, Query()],
    gateway: GatewayDep,
    caller: CallerDep,
    token: ConsistencyDep,
) -> Response:
    """One document. What has a meaning in a URL (`?`, `#`, `%`, `..`) is percent-encoded."""

    async def document() -> dict[str, Any]:
        chunks = query.include_chunks or query.include_vectors
        request = pb.GetRequest(
            collection=name,
            document_ids=[document_id],
            include_chunks=chunks,
            include_vectors=query.include_vectors,
            consistency_token=query.consistency_token or token,
        )
        response = await gateway.retrieval.call(methods.GET_DOCUMENTS, request, caller)
        if not response.documents:
            raise _no_document()
        return stored_document(response.documents[0], chunks=chunks, vectors=query.include_vectors)

    return json_answer(document)


@router.delete(
    "/v1/collections/{name}/documents/{document_id:path}", response_model=DocumentDeleted
)
async def delete_document(
    name: str, document_id: str, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Removes one document."""

    async def document() -> Written:
        request = pb.DeleteRequest(collection=name, document_ids=[document_id])
        response = await gateway.retrieval.call(methods.DELETE_DOCUMENTS, request, caller)
        if not response.num_deleted:
            raise _no_document()
        fields = {
            "id": document_id,
            "object": "document.deleted",
            "deleted": True,
        }
        return Written.telling(fields, response.consistency_token)

    return written_answer(document)


@router.post("/v1/collections/{name}/delete", response_model=DocumentsDeleted)
async def delete_documents(
    name: str, body: DeleteDocumentsRequest, gateway: GatewayDep, caller: CallerDep
) -> Response:
    """Removes documents by id or by filter."""

    async def document() -> Written:
        request = pb.DeleteRequest(
            collection=name, document_ids=body.document_ids, filter=metadata_filter(body.filter)
        )
        response = await gateway.retrieval.call(methods.DELETE_DOCUMENTS, request, caller)
        fields = {
            "object": "documents.deleted",
            "num_deleted": response.num_deleted,
        }
        return Written.telling(fields, response.consistency_token)

    return written_answer(document)


def _no_document() -> ResourceNotFound:
    return ResourceNotFound("there is no document of that id", field="document_id")
