"""Calls of the retrieval service, but for `Upsert`, which is a stream (`orrery.calls.uploads`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from orrery.calls.common import CallOptions, after_reading, call
from orrery.consistency import ConsistencyTokens
from orrery.filters import Filter
from orrery.methods import (
    CREATE_COLLECTION,
    DELETE_COLLECTION,
    DELETE_DOCUMENTS,
    GET_COLLECTION,
    GET_DOCUMENTS,
    GET_RETRIEVAL_LOAD,
    LIST_COLLECTIONS,
    LIST_DOCUMENTS,
    REBUILD,
    SEARCH,
    SEARCH_BATCH,
    SNAPSHOT,
    UPDATE_COLLECTION,
    Method,
)
from orrery.parsing.retrieval import (
    parse_collection,
    parse_delete,
    parse_document,
    parse_retrieval_load,
    parse_search,
    parse_search_batch,
    parse_snapshot,
)
from orrery.requests.collections import build_create, build_update
from orrery.requests.common import assign
from orrery.requests.documents import build_delete
from orrery.requests.pictures import Picture
from orrery.results import (
    Collection,
    DeleteResult,
    RetrievalLoad,
    SearchBatchResult,
    SearchResult,
    SnapshotInfo,
    StoredDocument,
)
from orrery.settings import ClientSettings
from orrery.steps import Steps
from orrery.v1 import retrieval_pb2 as pb

__all__ = ["RetrievalCalls"]

ResponseT = TypeVar("ResponseT")
ResultT = TypeVar("ResultT")

Page = tuple[tuple[ResultT, ...], str]
"""Some results, and the token of the next page (empty = there is none)."""


class RetrievalCalls:
    """Remembers the tokens of writes, and sends them with reads.

    Attributes:
        tokens: The newest of each collection.
    """

    def __init__(self, settings: ClientSettings, tokens: ConsistencyTokens) -> None:
        self.settings = settings
        self.tokens = tokens

    # --- collections ------------------------------------------------------------------------

    def create(
        self,
        name: str,
        title: str,
        metadata: Mapping[str, str] | None,
        config: Mapping[str, Any],
        *,
        exist_ok: bool,
        options: CallOptions,
    ) -> Steps[Collection]:
        """Makes a collection."""
        request = build_create(name, title, metadata, config, exist_ok=exist_ok)
        return self._call(
            CREATE_COLLECTION, request, self._written_collection, options, idempotent=exist_ok
        )

    def get(self, name: str, token: str | None, options: CallOptions) -> Steps[Collection]:
        """A collection."""
        request = pb.GetCollectionRequest(consistency_token=self.tokens.for_read(name, token))
        assign(request, "name", name)
        return self._call(
            GET_COLLECTION, request, lambda r: parse_collection(r.collection), options
        )

    def list_page(
        self, page_token: str, token: str | None, options: CallOptions
    ) -> Steps[Page[Collection]]:
        """Some of the collections."""
        request = pb.ListCollectionsRequest(
            page_token=page_token, consistency_token=self.tokens.for_read(None, token)
        )

        def parse(response: pb.ListCollectionsResponse) -> Page[Collection]:
            found = tuple(parse_collection(each) for each in response.collections)
            return found, response.next_page_token

        return self._call(LIST_COLLECTIONS, request, parse, options)

    def update(
        self,
        name: str,
        title: str | None,
        metadata: Mapping[str, str] | None,
        options: CallOptions,
    ) -> Steps[Collection]:
        """Changes title or metadata."""
        request = build_update(name, title, metadata)
        return self._call(UPDATE_COLLECTION, request, self._written_collection, options)

    def delete(self, name: str, options: CallOptions) -> Steps[None]:
        """Removes a collection with its documents."""
        request = pb.DeleteCollectionRequest()
        assign(request, "name", name)

        def parse(response: pb.DeleteCollectionResponse) -> None:
            self.tokens.saw(name, response.consistency_token)

        return self._call(DELETE_COLLECTION, request, parse, options, idempotent=False)

    def rebuild(self, name: str, options: CallOptions) -> Steps[Collection]:
        """Merges a collection's segments."""
        request = pb.RebuildRequest()
        assign(request, "collection", name)
        return self._call(REBUILD, request, lambda r: parse_collection(r.collection), options)

    def snapshot(self, options: CallOptions) -> Steps[SnapshotInfo]:
        """Writes a snapshot of all collections."""
        return self._call(SNAPSHOT, pb.SnapshotRequest(), parse_snapshot, options)

    def load(self, options: CallOptions) -> Steps[RetrievalLoad]:
        """What a replica is doing."""
        request = pb.RetrievalServiceGetLoadRequest()
        return self._call(GET_RETRIEVAL_LOAD, request, parse_retrieval_load, options)

    # --- documents --------------------------------------------------------------------------

    def delete_documents(
        self,
        collection: str,
        document_ids: Iterable[str] | None,
        condition: Filter | None,
        options: CallOptions,
    ) -> Steps[DeleteResult]:
        """Removes documents by id or by filter."""
        request = build_delete(collection, document_ids, condition)

        def parse(response: pb.DeleteResponse) -> DeleteResult:
            self.tokens.saw(collection, response.consistency_token)
            return parse_delete(response)

        return self._call(DELETE_DOCUMENTS, request, parse, options)

    def get_documents(
        self, request: pb.GetRequest, token: str | None, options: CallOptions
    ) -> Steps[tuple[StoredDocument, ...]]:
        """Documents by id; the request is `build_get`'s."""
        request.consistency_token = self.tokens.for_read(request.collection, token)

        def parse(response: pb.GetResponse) -> tuple[StoredDocument, ...]:
            return tuple(parse_document(document) for document in response.documents)

        return self._call(GET_DOCUMENTS, request, parse, options)

    def documents_page(
        self, request: pb.ListDocumentsRequest, token: str | None, options: CallOptions
    ) -> Steps[Page[StoredDocument]]:
        """Some of a collection's documents; the request is `build_list`'s."""
        request.consistency_token = self.tokens.for_read(request.collection, token)

        def parse(response: pb.ListDocumentsResponse) -> Page[StoredDocument]:
            found = tuple(parse_document(document) for document in response.documents)
            return found, response.next_page_token

        return self._call(LIST_DOCUMENTS, request, parse, options)

    # --- searching --------------------------------------------------------------------------

    def search(
        self,
        request: pb.SearchRequest,
        pictures: Sequence[Picture],
        token: str | None,
        options: CallOptions,
    ) -> Steps[SearchResult]:
        """One search; request and pictures are `build_search`'s."""
        request.consistency_token = self.tokens.for_read(request.collection, token)
        return after_reading(pictures, self._call(SEARCH, request, parse_search, options))

    def search_batch(
        self,
        request: pb.SearchBatchRequest,
        pictures: Sequence[Picture],
        token: str | None,
        options: CallOptions,
    ) -> Steps[SearchBatchResult]:
        """Many searches; request and pictures are `build_search_batch`'s."""
        request.consistency_token = self.tokens.for_read(request.collection, token)
        steps = self._call(SEARCH_BATCH, request, parse_search_batch, options)
        return after_reading(pictures, steps)

    def _written_collection(
        self, response: pb.CreateCollectionResponse | pb.UpdateCollectionResponse
    ) -> Collection:
        self.tokens.saw(response.collection.name, response.consistency_token)
        return parse_collection(response.collection)

    def _call(
        self,
        method: Method[Any, ResponseT],
        request: Any,
        parse: Callable[[ResponseT], ResultT],
        options: CallOptions,
        *,
        idempotent: bool = True,
    ) -> Steps[ResultT]:
        application = self.settings.services.retrieval
        return call(
            self.settings, application, method, request, parse, options, idempotent=idempotent
        )
