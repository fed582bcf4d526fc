"""`RetrievalService`: protobuf in, protobuf out. Files have a servicer of their own.

The same servicer runs under a plain `grpc.aio` server and inside Ray Serve. Every call ends at its
deadline with the stage that was at work; one that is cancelled ends what it had begun.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from orrery.v1 import common_pb2
from orrery.v1 import retrieval_pb2 as pb
from services.retrieval import messages, pages, search_messages
from services.retrieval.answers import built, check_size
from services.retrieval.config import RetrievalConfig
from services.retrieval.ingestion import UpsertItem
from services.retrieval.log.state import CollectionView
from services.retrieval.searches import Found
from services.retrieval.service import RetrievalService
from services.retrieval.timeline import Timeline
from services.runtime.errors import InvalidRequest, OrreryError
from services.runtime.peer import Caller
from services.runtime.process import resident_bytes
from services.runtime.rpc import Call, RpcPolicy, bidi_stream, unary

__all__ = ["RetrievalServicer"]

_READ_IN_THREAD_BYTES = 256 << 10


class RetrievalServicer:
    """The RPCs of one replica's collections."""

    def __init__(self, config: RetrievalConfig, service: RetrievalService, rpc: RpcPolicy) -> None:
        self._config = config
        self._max_bytes = config.limits.max_response_bytes
        self._service = service
        self._rpc = rpc

    @property
    def rpc(self) -> RpcPolicy:
        """What every call goes through."""
        return self._rpc

    async def close(self) -> None:
        """Drains: refuses new calls, lets running ones finish in time, ends the replica."""
        await self._rpc.lifecycle.drain(self._config.drain_timeout_s)
        await self._service.close()

    # --- collections --------------------------------------------------------------------------

    @unary(pb.CreateCollectionResponse)
    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, call: Call
    ) -> pb.CreateCollectionResponse:
        """A new collection; searches of this replica see it when this answers."""
        asked = messages.asked_collection(request)
        timeline, caller = self._begin(call)
        async with timeline.within_deadline():
            view, token = await self._service.collections.create(asked, caller)
        return pb.CreateCollectionResponse(
            collection=await _shown(view), consistency_token=token, timing=_total(call)
        )

    @unary(pb.ListCollectionsResponse)
    async def ListCollections(
        self, request: pb.ListCollectionsRequest, call: Call
    ) -> pb.ListCollectionsResponse:
        """Collections by name, a page at a time."""
        limit = self._page_limit(request)
        after = pages.read_name(request.page_token)
        await self._wait(call, request.consistency_token)
        views, more = self._service.collections.page(after, limit)
        shown = await asyncio.to_thread(lambda: [messages.collection(view) for view in views])
        response = pb.ListCollectionsResponse(
            collections=shown,
            next_page_token=pages.token_of_name(views[-1].name) if more else "",
            timing=_total(call),
        )
        check_size(response.ByteSize(), self._max_bytes, "page_size")
        return response

    @unary(pb.GetCollectionResponse)
    async def GetCollection(
        self, request: pb.GetCollectionRequest, call: Call
    ) -> pb.GetCollectionResponse:
        """One collection, with what its config was resolved to."""
        await self._wait(call, request.consistency_token)
        view = await self._service.collections.find(request.name, "name")
        return pb.GetCollectionResponse(collection=await _shown(view), timing=_total(call))

    @unary(pb.UpdateCollectionResponse)
    async def UpdateCollection(
        self, request: pb.UpdateCollectionRequest, call: Call
    ) -> pb.UpdateCollectionResponse:
        """Another title or other metadata."""
        title = request.title if request.HasField("title") else None
        values = dict(request.metadata.values) if request.HasField("metadata") else None
        timeline, caller = self._begin(call)
        async with timeline.within_deadline():
            view, token = await self._service.collections.update(
                request.name, title, values, caller
            )
        return pb.UpdateCollectionResponse(
            collection=await _shown(view), consistency_token=token, timing=_total(call)
        )

    @unary(pb.DeleteCollectionResponse)
    async def DeleteCollection(
        self, request: pb.DeleteCollectionRequest, call: Call
    ) -> pb.DeleteCollectionResponse:
        """Removes a collection with its documents and attachments."""
        timeline, _ = self._begin(call)
        async with timeline.within_deadline():
            token = await self._service.attachments.delete_collection(request.name)
        return pb.DeleteCollectionResponse(consistency_token=token, timing=_total(call))

    # --- documents ----------------------------------------------------------------------------

    @bidi_stream()
    async def Upsert(
        self, requests: AsyncIterator[pb.UpsertRequest], call: Call
    ) -> AsyncGenerator[pb.UpsertResponse, None]:
        """Documents in, one answer for each, in order."""
        timeline, caller = self._begin(call)
        upserts = self._service.ingestion.upsert(_items(requests), timeline, caller)
        num_done = 0
        async with aclosing(upserts):
            async for upserted in upserts:
                num_done += 1
                yield messages.upsert_response(upserted, num_done)

    @unary(pb.DeleteResponse)
    async def Delete(self, request: pb.DeleteRequest, call: Call) -> pb.DeleteResponse:
        """Removes documents by id or by filter."""
        given = request.HasField("filter")
        filter_ = search_messages.filter_of(request.filter) if given else None
        timeline, caller = self._begin(call)
        async with timeline.within_deadline():
            deleted = await self._service.delete(
                request.collection, request.document_ids, filter_, caller
            )
        return pb.DeleteResponse(
            num_deleted=deleted.num_deleted,
            consistency_token=deleted.token,
            timing=_total(call),
        )

    @unary(pb.GetResponse)
    async def Get(self, request: pb.GetRequest, call: Call) -> pb.GetResponse:
        """Documents by id."""
        await self._wait(call, request.consistency_token)
        found, generation = await self._service.get(request.collection, request.document_ids)
        with_chunks, with_vectors = request.include_chunks, request.include_vectors
        if with_vectors and not with_chunks:
            raise InvalidRequest(
                "include_vectors: vectors are the chunks'; expected include_chunks, too",
                field="include_vectors",
            )
        if with_chunks:
            sizes = (document.chunks_nbytes(with_vectors=with_vectors) for document in found)
            check_size(sum(sizes), self._max_bytes, "document_ids")

        def build() -> pb.GetResponse:
            documents = [
                messages.stored_document(
                    document, with_chunks=with_chunks, with_vectors=with_vectors
                )
                for document in found
            ]
            return pb.GetResponse(documents=documents, index_generation=generation.number)

        num_chunks = sum(document.num_chunks for document in found) if with_chunks else 0
        response = await built(build, num_chunks)
        check_size(response.ByteSize(), self._max_bytes, "document_ids")
        response.timing.total_ns = call.total_ns
        return response

    @unary(pb.ListDocumentsResponse)
    async def ListDocuments(
        self, request: pb.ListDocumentsRequest, call: Call
    ) -> pb.ListDocumentsResponse:
        """The documents of a collection, a page at a time."""
        limit = self._page_limit(request)
        after = pages.read_name(request.page_token)
        given = request.HasField("filter")
        filter_ = search_messages.filter_of(request.filter) if given else None
        await self._wait(call, request.consistency_token)
        found, more, generation = await self._service.list_documents(
            request.collection, after, limit, filter_
        )
        response = pb.ListDocumentsResponse(
            documents=[
                messages.stored_document(document, with_chunks=False, with_vectors=False)
                for document in found
            ],
            next_page_token=pages.token_of_name(found[-1].info.id) if more else "",
            index_generation=generation.number,
            timing=_total(call),
        )
        check_size(response.ByteSize(), self._max_bytes, "page_size")
        return response

    # --- searching ----------------------------------------------------------------------------

    @unary(pb.SearchResponse)
    async def Search(self, request: pb.SearchRequest, call: Call) -> pb.SearchResponse:
        """The chunks that answer a query best."""
        asked = search_messages.asked_search(request.options)
        query = search_messages.query_of(request.query)
        timeline, caller = self._begin(call)
        async with timeline.within_deadline():
            await self._service.at(request.consistency_token, timeline)
            found, generation = await self._service.search(
                request.collection, query, asked, timeline, caller
            )

        def build() -> pb.SearchResponse:
            response = pb.SearchResponse(index_generation=generation.number)
            _put_hits(response.hits, found, request.options)
            check_size(response.ByteSize(), self._max_bytes, "options.k")
            return response

        response = await built(build, len(found.hits))
        response.request_id = call.request_id
        response.usage.prompt_tokens = found.num_tokens
        response.timing.retrieval_ns = timeline.spent_ns("embed", "search", "select")
        response.timing.rerank_ns = timeline.spent_ns("rerank")
        response.timing.total_ns = call.total_ns
        if request.explain:
            response.timeline.extend(messages.timeline_stages(timeline))
        return response

    @unary(pb.SearchBatchResponse)
    async def SearchBatch(
        self, request: pb.SearchBatchRequest, call: Call
    ) -> pb.SearchBatchResponse:
        """Many searches; one that fails has its error in its result."""
        asked = search_messages.asked_search(request.options)
        queries = [search_messages.query_of(query) for query in request.queries]
        timeline, caller = self._begin(call)
        async with timeline.within_deadline():
            await self._service.at(request.consistency_token, timeline)
            results, generation = await self._service.search_batch(
                request.collection, queries, asked, timeline, caller
            )
        response = pb.SearchBatchResponse(
            request_id=call.request_id, index_generation=generation.number
        )

        def build() -> pb.SearchBatchResponse:
            num_bytes = 0
            for result in results:
                message = response.results.add()
                if isinstance(result, OrreryError):
                    message.error.CopyFrom(messages.item_error(result))
                else:
                    _put_hits(message.hits, result, request.options)
                    response.usage.prompt_tokens += result.num_tokens
                num_bytes += message.ByteSize()
                check_size(num_bytes, self._max_bytes, "options.k")
            return response

        await built(build, sum(len(one.hits) for one in results if isinstance(one, Found)))
        response.timing.retrieval_ns = timeline.spent_ns("embed", "search", "select")
        response.timing.rerank_ns = timeline.spent_ns("rerank")
        response.timing.total_ns = call.total_ns
        return response

    # --- running it ---------------------------------------------------------------------------

    @unary(pb.RebuildResponse)
    async def Rebuild(self, request: pb.RebuildRequest, call: Call) -> pb.RebuildResponse:
        """Merges a collection's segments into one, in the replica that is reached."""
        timeline, _ = self._begin(call)
        async with timeline.within_deadline():
            view = await self._service.rebuild(request.collection)
        return pb.RebuildResponse(collection=await _shown(view), timing=_total(call))

    @unary(pb.SnapshotResponse)
    async def Snapshot(self, _request: pb.SnapshotRequest, call: Call) -> pb.SnapshotResponse:
        """Writes a snapshot now."""
        timeline, _ = self._begin(call)
        async with timeline.within_deadline():
            info = await self._service.snapshot()
        return pb.SnapshotResponse(
            log_position=str(info.position),
            num_collections=info.num_collections,
            num_chunks=info.num_chunks,
            num_bytes=info.num_bytes,
            timing=_total(call),
        )

    @unary(pb.RetrievalServiceGetLoadResponse)
    async def GetLoad(
        self, _request: pb.RetrievalServiceGetLoadRequest, _call: Call
    ) -> pb.RetrievalServiceGetLoadResponse:
        """What this replica is doing, and how far it has read the log."""
        load = self._service.load()
        return pb.RetrievalServiceGetLoadResponse(
            num_running=self._rpc.lifecycle.num_in_flight - 1,
            num_waiting_searches=load.num_waiting_searches,
            num_collections=load.num_collections,
            num_documents=load.num_documents,
            num_chunks=load.num_chunks,
            applied_position=str(load.applied),
            log_position=str(load.tail),
            log_available=load.log_available,
            snapshot_position="" if load.snapshot is None else str(load.snapshot),
            resident_bytes=resident_bytes(),
            num_searches_done=load.num_searches_done,
            process_id=os.getpid(),
        )

    def _begin(self, call: Call) -> tuple[Timeline, Caller]:
        caller = Caller.of(call, self._config.limits.default_timeout_s)
        return Timeline(call.arrival_s, caller.deadline_s), caller

    async def _wait(self, call: Call, token: str) -> None:
        timeline, _ = self._begin(call)
        async with timeline.within_deadline():
            await self._service.at(token, timeline)

    def _page_limit(self, request: pb.ListCollectionsRequest | pb.ListDocumentsRequest) -> int:
        size = request.page_size if request.HasField("page_size") else None
        return pages.page_limit(size, self._config.limits.max_page_size)


async def _items(requests: AsyncIterator[pb.UpsertRequest]) -> AsyncIterator[UpsertItem]:
    async for request in requests:
        if request.ByteSize() > _READ_IN_THREAD_BYTES:  # vectors, one number after another
            yield await asyncio.to_thread(messages.upsert_item, request)
        else:
            yield messages.upsert_item(request)


async def _shown(view: CollectionView) -> pb.Collection:
    """In a thread: how much memory a large collection takes is counted when first asked for."""
    return await asyncio.to_thread(messages.collection, view)


def _put_hits(target: object, found: Found, options: pb.SearchOptions) -> None:
    with_text = options.include_text if options.HasField("include_text") else True
    for hit in found.hits:
        search_messages.put_hit(
            target, hit, with_text=with_text, with_vectors=options.include_vectors
        )


def _total(call: Call) -> common_pb2.Timing:
    return common_pb2.Timing(total_ns=call.total_ns)
