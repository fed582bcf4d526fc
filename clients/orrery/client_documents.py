"""`client.documents`: the documents of the collections."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

from orrery.async_connection import AsyncConnection
from orrery.calls.common import CallOptions, begin
from orrery.calls.retrieval import RetrievalCalls
from orrery.calls.uploads import Upload, Window, take_documents
from orrery.connection import Connection
from orrery.documents import DocumentSource
from orrery.effects import ExchangeSteps
from orrery.filters import Filter
from orrery.requests.documents import build_get, build_list
from orrery.results import DeleteResult, StoredDocument, UpsertReport
from orrery.uploads import AsyncUpsertStream, UpsertStream

__all__ = ["AsyncDocuments", "Documents"]


class Documents:
    """Made by `Client`. Every method may raise `OrreryError`; see `Collections` for the tokens."""

    def __init__(self, connection: Connection, calls: RetrievalCalls) -> None:
        self._connection = connection
        self._calls = calls

    def upsert(
        self,
        collection: str,
        documents: Iterable[DocumentSource],
        *,
        max_in_flight: int = 32,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> UpsertReport:
        """Puts documents into a collection, where each replaces the one with its id.

        A document that cannot be read has its error in its result and does not disturb the others.
        When the service goes away, what it has not answered is sent again, until the time is up or
        it has been away for a minute.

        Args:
            collection: Which must be there.
            documents: `Document`s, and paths of files; taken one by one.
            max_in_flight: Most documents sent and not yet answered.
            timeout_s: Time of the whole upload in seconds; None = no limit.
            request_id: 1 to 128 visible ASCII characters; made up if None.
        """
        with self.upsert_stream(
            collection,
            documents,
            max_in_flight=max_in_flight,
            timeout_s=timeout_s,
            request_id=request_id,
        ) as stream:
            return stream.report()

    def upsert_stream(
        self,
        collection: str,
        documents: Iterable[DocumentSource],
        *,
        max_in_flight: int = 32,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> UpsertStream:
        """The same, result by result. Nothing is sent before the first result is asked for."""
        timeout_s = math.inf if timeout_s is None else timeout_s
        options = CallOptions(None, timeout_s, request_id)
        steps = _upload(self._calls, collection, max_in_flight, options)
        return UpsertStream(self._connection, steps, documents)

    def delete(
        self,
        collection: str,
        document_ids: Iterable[str] | None = None,
        *,
        filter: Filter | None = None,  # noqa: A002 - the contract's name
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> DeleteResult:
        """Removes documents: those with these ids, or those that match a filter."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(
            self._calls.delete_documents(collection, document_ids, filter, options)
        )

    def get(
        self,
        collection: str,
        document_ids: Iterable[str],
        *,
        include_chunks: bool = False,
        include_vectors: bool = False,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> tuple[StoredDocument, ...]:
        """Documents by id; ids that are not there are left out."""
        request = build_get(
            collection,
            document_ids,
            include_chunks=include_chunks,
            include_vectors=include_vectors,
        )
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._calls.get_documents(request, consistency_token, options))

    def list(
        self,
        collection: str,
        *,
        filter: Filter | None = None,  # noqa: A002 - the contract's name
        page_size: int | None = None,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Iterator[StoredDocument]:
        """The documents of a collection by id, without chunks, asked for a page at a time.

        The time is that of each page.
        """
        request = build_list(collection, filter, page_size)
        while True:
            page, request.page_token = self._connection.run(
                self._calls.documents_page(
                    request, consistency_token, CallOptions(None, timeout_s, request_id)
                )
            )
            yield from page
            if not request.page_token:
                return


class AsyncDocuments:
    """Made by `AsyncClient`; see `Documents`."""

    def __init__(self, connection: AsyncConnection, calls: RetrievalCalls) -> None:
        self._connection = connection
        self._calls = calls

    async def upsert(
        self,
        collection: str,
        documents: Iterable[DocumentSource] | AsyncIterable[DocumentSource],
        *,
        max_in_flight: int = 32,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> UpsertReport:
        """Puts documents into a collection, where each replaces the one with its id.

        See `Documents.upsert`.
        """
        async with self.upsert_stream(
            collection,
            documents,
            max_in_flight=max_in_flight,
            timeout_s=timeout_s,
            request_id=request_id,
        ) as stream:
            return await stream.report()

    def upsert_stream(
        self,
        collection: str,
        documents: Iterable[DocumentSource] | AsyncIterable[DocumentSource],
        *,
        max_in_flight: int = 32,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> AsyncUpsertStream:
        """The same, result by result. Nothing is sent before the first result is asked for.

        See `Documents.upsert_stream`.
        """
        timeout_s = math.inf if timeout_s is None else timeout_s
        options = CallOptions(None, timeout_s, request_id)
        steps = _upload(self._calls, collection, max_in_flight, options)
        return AsyncUpsertStream(self._connection, steps, documents)

    async def delete(
        self,
        collection: str,
        document_ids: Iterable[str] | None = None,
        *,
        filter: Filter | None = None,  # noqa: A002 - the contract's name
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> DeleteResult:
        """Removes documents: those with these ids, or those that match a filter.

        See `Documents.delete`.
        """
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(
            self._calls.delete_documents(collection, document_ids, filter, options)
        )

    async def get(
        self,
        collection: str,
        document_ids: Iterable[str],
        *,
        include_chunks: bool = False,
        include_vectors: bool = False,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> tuple[StoredDocument, ...]:
        """Documents by id; ids that are not there are left out; see `Documents.get`."""
        request = build_get(
            collection,
            document_ids,
            include_chunks=include_chunks,
            include_vectors=include_vectors,
        )
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(
            self._calls.get_documents(request, consistency_token, options)
        )

    async def list(
        self,
        collection: str,
        *,
        filter: Filter | None = None,  # noqa: A002 - the contract's name
        page_size: int | None = None,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> AsyncIterator[StoredDocument]:
        """The documents of a collection by id, without chunks, asked for a page at a time.

        See `Documents.list`.
        """
        request = build_list(collection, filter, page_size)
        while True:
            page, request.page_token = await self._connection.run(
                self._calls.documents_page(
                    request, consistency_token, CallOptions(None, timeout_s, request_id)
                )
            )
            for document in page:
                yield document
            if not request.page_token:
                return


def _upload(
    calls: RetrievalCalls, collection: str, max_in_flight: int, options: CallOptions
) -> ExchangeSteps[None]:
    context = begin(calls.settings, options)
    take = take_documents(collection, context)
    application = calls.settings.services.retrieval
    return Upload(context, application, take, calls.tokens, Window(max_in_flight)).steps()
