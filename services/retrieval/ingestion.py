"""Documents into a collection: unchanged ones found out, the others prepared and logged.

    read one -> a slot -> prepare (side by side) -> put in the log -> answer, in the order sent
                 ^ none free: nothing more is read from the stream

Knows nothing of protobuf.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace

from services.retrieval.collections import Collections
from services.retrieval.concurrency import KeyedLocks, SharedCall
from services.retrieval.config import RequestLimits, WorkConfig
from services.retrieval.documents import DocumentPipeline
from services.retrieval.log.position import START, Position
from services.retrieval.log.replica import Replica
from services.retrieval.log.state import CollectionView
from services.retrieval.raw_documents import RawDocument, check_document, content_hash
from services.retrieval.timeline import Timeline
from services.retrieval.types import UpsertStatus
from services.retrieval.work_metrics import WorkMetrics
from services.runtime.errors import CollectionNotFound, Internal, InvalidRequest, OrreryError
from services.runtime.peer import Caller

__all__ = ["Ingestion", "UpsertItem", "Upserted"]

_SYNC_LIMIT_S = 10.0
_DISCARD_S, _DISCARD_IDLE_S = 2.0, 0.1
_HASH_IN_THREAD_BYTES = 256 << 10


@dataclass(frozen=True, slots=True, eq=False)
class UpsertItem:
    """One message of a stream: a document, or why it is none."""

    collection: str
    document_id: str
    document: RawDocument | InvalidRequest


@dataclass(frozen=True, slots=True, eq=False)
class Upserted:
    """What became of one document. `position`: of its entry, or what tells that it is there."""

    document_id: str
    status: UpsertStatus
    position: Position
    total_ns: int
    num_chunks: int = 0
    num_bytes: int = 0  # of text and vectors in the collection
    num_tokens: int = 0
    error: OrreryError | None = None


@dataclass(slots=True, eq=False)
class _Stream:
    """One Upsert call: for whom, and into which collection; "" = not known yet."""

    caller: Caller
    collection: str = ""
    collection_id: str = ""


_Queue = asyncio.Queue["asyncio.Task[Upserted] | Exception | None"]


class Ingestion:
    """Upserts of one replica."""

    def __init__(
        self,
        replica: Replica,
        collections: Collections,
        pipeline: DocumentPipeline,
        limits: RequestLimits,
        work: WorkConfig,
        metrics: WorkMetrics,
    ) -> None:
        self._replica = replica
        self._collections = collections
        self._pipeline = pipeline
        self._limits = limits
        self._metrics = metrics
        self._max_stream_documents = work.max_stream_documents
        self._slots = asyncio.Semaphore(work.max_documents)
        self._locks = KeyedLocks()
        self._sync = SharedCall(lambda: replica.sync(_SYNC_LIMIT_S))
        # Puts of this process that its searches do not see yet, oldest first.
        self._unapplied: OrderedDict[tuple[str, str], Position] = OrderedDict()

    async def upsert(
        self, items: AsyncIterator[UpsertItem], timeline: Timeline, caller: Caller
    ) -> AsyncGenerator[Upserted, None]:
        """One answer per item, in order; positions never go back. Closing it ends all its work.

        A document that is wrong has its error in its answer. Anything else that fails is raised.
        """
        queue: _Queue = asyncio.Queue(self._max_stream_documents)
        tasks: set[asyncio.Task[Upserted]] = set()
        feeder = asyncio.create_task(self._feed(items, _Stream(caller), queue, tasks))
        seen = START
        try:
            while True:
                async with timeline.within_deadline():
                    upserted = await _next(queue)
                if upserted is None:
                    return
                seen = max(seen, upserted.position)
                yield _at(upserted, seen)
        finally:
            feeder.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(feeder, *tasks, return_exceptions=True)

    async def upsert_one(self, collection: str, document: RawDocument, caller: Caller) -> Upserted:
        """One document into a collection. A wrong document's error is raised, too."""
        async with self._slots:
            stream = await self._open(collection, caller)
            return await self._put(stream, document)

    async def _feed(
        self,
        items: AsyncIterator[UpsertItem],
        stream: _Stream,
        queue: _Queue,
        tasks: set[asyncio.Task[Upserted]],
    ) -> None:
        try:
            async for item in items:
                if not stream.collection:
                    stream = await self._open(item.collection, stream.caller)
                elif item.collection not in ("", stream.collection):
                    raise InvalidRequest(
                        "collection: expected that of the first message, or none",
                        field="collection",
                    )
                await self._slots.acquire()
                task = asyncio.create_task(self._answer(stream, item))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(self._give_back)
                await queue.put(task)
        except Exception as error:  # noqa: BLE001 - raised where the answers are awaited
            await _discard(items)
            await queue.put(error)
        else:
            await queue.put(None)

    def _give_back(self, task: asyncio.Task[Upserted]) -> None:
        self._slots.release()
        if not task.cancelled():
            task.exception()  # seen: the stream may have ended by the error of an earlier one

    async def _open(self, collection: str, caller: Caller) -> _Stream:
        if not collection:
            raise InvalidRequest(
                "collection: expected a name in the first message", field="collection"
            )
        await self._sync()  # what others have just written is not read and embedded again
        view = await self._collections.find(collection)
        return _Stream(caller, view.name, view.id)

    async def _answer(self, stream: _Stream, item: UpsertItem) -> Upserted:
        began_ns = time.monotonic_ns()
        try:
            if isinstance(item.document, InvalidRequest):
                raise item.document
            return await self._put(stream, item.document)
        except (InvalidRequest, Internal) as error:  # of this document alone
            self._metrics.document(UpsertStatus.FAILED, 0)
            total_ns = time.monotonic_ns() - began_ns
            return Upserted(item.document_id, UpsertStatus.FAILED, START, total_ns, error=error)

    async def _put(self, stream: _Stream, raw: RawDocument) -> Upserted:
        began_ns = time.monotonic_ns()
        upserted = await self._unless_unchanged(stream, raw)
        self._metrics.document(upserted.status, upserted.num_chunks)
        return replace(upserted, total_ns=time.monotonic_ns() - began_ns)

    async def _unless_unchanged(self, stream: _Stream, raw: RawDocument) -> Upserted:
        check_document(raw, self._limits)
        # Before anything is awaited: of two documents with one id, the one sent last stays.
        async with self._locks.hold((stream.collection_id, raw.id)):
            if raw.num_bytes > _HASH_IN_THREAD_BYTES:
                hashed = await asyncio.to_thread(content_hash, raw)
            else:
                hashed = content_hash(raw)
            view = await self._current(stream, raw.id)
            before = view.generation.content_hash(raw.id)
            if before == hashed:
                await self._sync()  # another replica may have changed it meanwhile
                view = await self._current(stream, raw.id)
                before = view.generation.content_hash(raw.id)
            if before == hashed:
                return self._unchanged(view, raw.id)
            prepared = await self._pipeline.prepare(raw, hashed, view.config, stream.caller)
            position = await self._replica.put(view.id, prepared.document)
            self._unapplied[view.id, raw.id] = position
        document = prepared.document
        return Upserted(
            raw.id,
            UpsertStatus.ADDED if before is None else UpsertStatus.REPLACED,
            position,
            total_ns=0,
            num_chunks=len(document.chunks),
            num_bytes=document.vectors.nbytes
            + sum(len(chunk.text.encode()) for chunk in document.chunks),
            num_tokens=prepared.num_tokens,
        )

    async def _current(self, stream: _Stream, document_id: str) -> CollectionView:
        """The stream's collection, with all that this process has put under that id."""
        applied = self._replica.applied
        while self._unapplied:
            key, position = next(iter(self._unapplied.items()))
            if position > applied:
                break
            del self._unapplied[key]
        unapplied = self._unapplied.get((stream.collection_id, document_id))
        if unapplied is not None:
            limit_s = min(_SYNC_LIMIT_S, stream.caller.left_s())
            await self._replica.wait_for(str(unapplied), limit_s)
        view = self._replica.collection(stream.collection)
        if view.id != stream.collection_id:
            raise CollectionNotFound(
                f"collection: {stream.collection!r} was deleted and made anew meanwhile",
                field="collection",
            )
        return view

    def _unchanged(self, view: CollectionView, document_id: str) -> Upserted:
        stored = view.generation.get(document_id)
        return Upserted(
            document_id,
            UpsertStatus.UNCHANGED,
            self._replica.applied,
            total_ns=0,
            num_chunks=0 if stored is None else stored.num_chunks,
        )


async def _discard(items: AsyncIterator[UpsertItem]) -> None:
    """Takes what the client is just sending: a status that comes meanwhile its gRPC may not see.

    Raises nothing: whatever else is wrong with the rest, the stream ends by its first error.
    """
    end_s = time.monotonic() + _DISCARD_S
    with suppress(Exception):
        while time.monotonic() < end_s:
            async with asyncio.timeout(_DISCARD_IDLE_S):
                await anext(items)


async def _next(queue: _Queue) -> Upserted | None:
    entry = await queue.get()
    if isinstance(entry, Exception):
        raise entry
    return None if entry is None else await entry


def _at(upserted: Upserted, position: Position) -> Upserted:
    return replace(upserted, position=position)
