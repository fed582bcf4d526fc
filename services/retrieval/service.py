"""The retrieval service's work behind its RPCs, put together: one object per replica.

Everything that reads answers from memory, whatever Redis does; everything that writes is in the
log when it returns. Knows nothing of protobuf, gRPC and Ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from services.retrieval.asked_searches import AskedSearch, check_asked
from services.retrieval.attachments import Attachments
from services.retrieval.checks import check_filter_form
from services.retrieval.collections import Collections
from services.retrieval.config import RetrievalConfig
from services.retrieval.documents import DocumentPipeline
from services.retrieval.embedder import Embedder
from services.retrieval.files import FileStore, is_file_id
from services.retrieval.index.batching import SearchBatcher
from services.retrieval.index.generation import Generation, StoredDocumentView
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.ingest.document import ParseLimits
from services.retrieval.ingestion import Ingestion
from services.retrieval.log.position import Position
from services.retrieval.log.replica import Replica, ReplicaOptions
from services.retrieval.log.snapshots import SnapshotInfo, SnapshotStore
from services.retrieval.log.snapshotter import SnapshotPolicy
from services.retrieval.log.state import CollectionView
from services.retrieval.readers import ReaderPool
from services.retrieval.searches import (
    Found,
    Searched,
    Searcher,
)
from services.retrieval.timeline import Timeline
from services.retrieval.types import Filter, Query
from services.retrieval.work_metrics import WorkMetrics
from services.runtime.errors import InvalidRequest, OrreryError
from services.runtime.metrics import MetricsRegistry
from services.runtime.peer import Caller

__all__ = ["Deleted", "Load", "RetrievalService", "Stores"]

_REMOVED_AT_ONCE = 1000  # ids in one entry of the log


@dataclass(frozen=True, slots=True)
class Stores:
    """Where a replica's data is, and whom it asks for vectors.

    `tokenizers`: folder of the tokenizer for each embedding application.
    """

    redis: Redis
    data_dir: Path
    embedder: Embedder
    tokenizers: dict[str, str]
    registry: MetricsRegistry


@dataclass(frozen=True, slots=True)
class Load:
    """What this replica is doing, and how far it has read the log."""

    num_waiting_searches: int
    num_searches_done: int
    num_collections: int
    num_documents: int
    num_chunks: int
    applied: Position
    tail: Position
    log_available: bool
    snapshot: Position | None


@dataclass(frozen=True, slots=True, eq=False)
class Deleted:
    """How many documents were there, and the token of the write."""

    num_deleted: int
    token: str


class RetrievalService:
    """One replica. `start` makes it; it is ready when that returns."""

    def __init__(self, config: RetrievalConfig, stores: Stores, replica: Replica) -> None:
        self._config = config
        self._replica = replica
        limits, work = config.limits, config.work
        self._readers = ReaderPool(
            ParseLimits(
                max_bytes=limits.max_document_bytes,
                max_characters=limits.max_document_characters,
                max_seconds=work.read_timeout_s,
            ),
            num_readers=work.num_readers,
            timeout_s=work.read_timeout_s + 5.0,  # parsers look at the clock themselves
            memory_bytes=work.reader_memory_bytes,
        )
        pipeline = DocumentPipeline(self._readers, stores.embedder, stores.tokenizers, limits)
        self._search_threads = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._metrics = WorkMetrics(stores.registry, config.search.max_waiting)
        batcher = SearchBatcher(
            self._search_threads,
            max_batch=config.search.max_batch,
            max_waiting=config.search.max_waiting,
            on_batch=self._metrics.batch,
            on_queue=self._metrics.queue,
        )
        self._searcher = Searcher(
            stores.embedder, batcher, limits, config.search.max_batch_concurrency
        )
        self.collections = Collections(config, replica, stores.embedder)
        self.ingestion = Ingestion(replica, self.collections, pipeline, limits, work, self._metrics)
        self.files = FileStore(stores.redis, config.files)
        self.attachments = Attachments(replica, self.collections, self.ingestion, self.files)

    @classmethod
    async def start(cls, config: RetrievalConfig, stores: Stores) -> RetrievalService:
        """Returns when the replica has caught up with the log. Raises `OrreryError`."""
        folder = stores.data_dir / "retrieval" / "snapshots"
        replica = await Replica.start(
            stores.redis,
            SnapshotStore(folder, keep=config.log.num_snapshots),
            ReplicaOptions(
                start_limit_s=config.log.start_timeout_s,
                segments=SegmentPolicy(
                    num_threads=config.search.num_threads,
                    flat_rows=config.search.flat_rows,
                    use_gpu=config.search.use_gpu,
                ),
                snapshots=SnapshotPolicy(
                    max_entries=config.log.snapshot_after_entries,
                    max_bytes=config.log.snapshot_after_bytes,
                ),
            ),
            stores.registry,
        )
        service = cls(config, stores, replica)
        try:
            await service.attachments.forget_orphans()
        except BaseException:
            await service.close()
            raise
        return service

    @property
    def failure(self) -> str | None:
        """Why this replica needs a restart; None = it does not."""
        return self._replica.failure

    @property
    def hindrance(self) -> str | None:
        """Why searches do not see what they should until it has passed; None = they do.

        A store that is away is none: what was written before, they see.
        """
        if self._replica.trouble is not None:
            return f"the log cannot be followed: {self._replica.trouble}"
        behind_s = self._replica.behind_s
        if behind_s > self._config.log.max_behind_s:
            return f"it has been behind the end of the log for {behind_s:.0f} s"
        return None

    async def close(self) -> None:
        """Ends all work."""
        await self._readers.close()
        await self._replica.close()
        self._search_threads.shutdown(wait=False, cancel_futures=True)

    async def at(self, token: str, timeline: Timeline) -> None:
        """Returns when searches see what the token stands for; "" = nothing to wait for."""
        if token:
            with timeline.stage("wait"):
                await self._replica.wait_for(token, timeline.left_s)

    # --- reading ------------------------------------------------------------------------------

    async def search(
        self, collection: str, query: Query, asked: AskedSearch, timeline: Timeline, caller: Caller
    ) -> tuple[Found, Generation]:
        """The hits of one query, and the generation that was searched. Raises `OrreryError`."""
        check_asked(asked, self._config.limits)
        view = await self.collections.find(collection)
        where = Searched(view.config, view.generation, timeline, caller)
        found = await self._searcher.search(where, query, asked)
        self._metrics.stages(timeline.stages)
        return found, where.generation

    async def search_batch(
        self,
        collection: str,
        queries: Sequence[Query],
        asked: AskedSearch,
        timeline: Timeline,
        caller: Caller,
    ) -> tuple[list[Found | OrreryError], Generation]:
        """One result or error per query, in order. Raises what is wrong with all of them."""
        limits = self._config.limits
        if not 1 <= len(queries) <= limits.max_queries:
            raise InvalidRequest(
                f"queries: expected 1 to {limits.max_queries}, got {len(queries)}", field="queries"
            )
        check_asked(asked, limits)
        if len(queries) * asked.k > limits.max_batch_hits:
            raise InvalidRequest(
                f"options.k: {len(queries)} queries for {asked.k} chunks each; expected at most "
                f"{limits.max_batch_hits} in all",
                field="options.k",
            )
        view = await self.collections.find(collection)
        where = Searched(view.config, view.generation, timeline, caller)
        results = await self._searcher.search_batch(where, queries, asked)
        self._metrics.stages(timeline.stages)
        return results, where.generation

    async def get(
        self, collection: str, document_ids: Sequence[str]
    ) -> tuple[list[StoredDocumentView], Generation]:
        """The documents that are there, in the order of the ids, each once."""
        limit = self._config.limits.max_document_ids
        if not 1 <= len(document_ids) <= limit:
            raise InvalidRequest(
                f"document_ids: expected 1 to {limit}, got {len(document_ids)}",
                field="document_ids",
            )
        generation = (await self.collections.find(collection)).generation
        found = (generation.get(document_id) for document_id in dict.fromkeys(document_ids))
        return [document for document in found if document is not None], generation

    async def list_documents(
        self, collection: str, after: str, limit: int, filter_: Filter | None
    ) -> tuple[list[StoredDocumentView], bool, Generation]:
        """A page of documents by id, whether there are more, and the generation."""
        generation = (await self.collections.find(collection)).generation
        if filter_ is not None:
            check_filter_form(filter_)
            generation.check_filter(filter_, of_documents=True)
        ids = await asyncio.to_thread(
            generation.document_ids, after=after, limit=limit + 1, filter=filter_
        )
        found = (generation.get(document_id) for document_id in ids[:limit])
        return [entry for entry in found if entry is not None], len(ids) > limit, generation

    # --- writing ------------------------------------------------------------------------------

    async def delete(
        self, collection: str, document_ids: Sequence[str], filter_: Filter | None, caller: Caller
    ) -> Deleted:
        """Removes documents by id or by filter: exactly one of them is given."""
        limit = self._config.limits.max_document_ids
        if bool(document_ids) == (filter_ is not None):
            raise InvalidRequest(
                "document_ids: expected either ids or a filter", field="document_ids"
            )
        if len(document_ids) > limit:
            raise InvalidRequest(
                f"document_ids: expected at most {limit}, got {len(document_ids)}",
                field="document_ids",
            )
        await self._replica.sync(caller.left_s())
        view = await self.collections.find(collection)
        generation = view.generation
        wanted = list(dict.fromkeys(document_ids))
        if filter_ is None:
            ids = [some for some in wanted if generation.content_hash(some) is not None]
        else:
            check_filter_form(filter_)
            generation.check_filter(filter_, of_documents=True)
            wanted = ids = await asyncio.to_thread(generation.matching_documents, filter_)
        position = self._replica.applied
        for start in range(0, len(ids), _REMOVED_AT_ONCE):
            position = await self._replica.remove(view.id, ids[start : start + _REMOVED_AT_ONCE])
        # Also of those that are gone already: the store may have gone away just here before.
        await self.files.detach(view.id, filter(is_file_id, wanted))
        return Deleted(len(ids), str(position))

    # --- running it ---------------------------------------------------------------------------

    async def rebuild(self, collection: str) -> CollectionView:
        """Merges a collection's segments into one, in this replica."""
        await self.collections.find(collection)
        await self._replica.rebuild(collection)
        return await self.collections.find(collection)

    async def snapshot(self) -> SnapshotInfo:
        """Writes a snapshot now."""
        return await self._replica.snapshot()

    def load(self) -> Load:
        """What this replica is doing right now."""
        views = self._replica.collections()
        generations = [view.generation for view in views]
        return Load(
            num_waiting_searches=self._searcher.num_waiting,
            num_searches_done=self._searcher.num_done,
            num_collections=len(views),
            num_documents=sum(generation.num_documents for generation in generations),
            num_chunks=sum(generation.num_chunks for generation in generations),
            applied=self._replica.applied,
            tail=self._replica.tail,
            log_available=self._replica.log_available,
            snapshot=self._replica.snapshot_position,
        )
