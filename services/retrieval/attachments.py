"""Files put into collections: the document's id is the file's. Knows nothing of protobuf."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from services.retrieval.checks import check_metadata
from services.retrieval.collections import Collections
from services.retrieval.files import Attachment, AttachmentError, FileStore
from services.retrieval.ingestion import Ingestion
from services.retrieval.log.replica import Replica
from services.retrieval.raw_documents import RawDocument, RawFile
from services.retrieval.types import Metadata, UpsertStatus
from services.runtime.errors import (
    CollectionNotFound,
    DependencyDown,
    Internal,
    InvalidRequest,
    OrreryError,
    ResourceNotFound,
    kind_of,
)
from services.runtime.peer import Caller

__all__ = ["Attached", "Attachments"]

_LOG = logging.getLogger("orrery.retrieval.attachments")

_SYNC_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Attached:
    """What became of a file, and the token of the write, "" where nothing was written."""

    attachment: Attachment
    token: str


class Attachments:
    """Puts files into collections and takes them out."""

    def __init__(
        self, replica: Replica, collections: Collections, ingestion: Ingestion, files: FileStore
    ) -> None:
        self._replica = replica
        self._collections = collections
        self._ingestion = ingestion
        self._files = files

    async def attach(
        self,
        collection: str,
        file_id: str,
        metadata: Metadata,
        caller: Caller,
    ) -> Attached:
        """Reads a file into a collection. One that cannot be read is kept as failed."""
        check_metadata(metadata, "metadata")
        info, data = await self._files.content(file_id, "file_id")
        view = await self._collections.find(collection)
        document = RawDocument(file_id, "", RawFile(data, info.name), metadata)
        made_ms = time.time_ns() // 1_000_000
        token = ""
        try:
            done = await self._ingestion.upsert_one(collection, document, caller)
        except (InvalidRequest, Internal) as error:
            attachment = Attachment(file_id, 0, 0, made_ms, metadata, _told(error))
        else:
            token = str(done.position)
            num_bytes = done.num_bytes
            if done.status is UpsertStatus.UNCHANGED:
                num_bytes = self._num_bytes(collection, file_id)
            attachment = Attachment(file_id, done.num_chunks, num_bytes, made_ms, metadata)
        await self._files.attach(view.id, attachment)
        await self._forget_if_gone(collection, view.id)
        return Attached(attachment, token)

    async def get(self, collection: str, file_id: str) -> Attachment:
        """Raises `ResourceNotFound`."""
        view = await self._collections.find(collection)
        return await self._files.attachment(view.id, file_id)

    async def page(
        self, collection: str, before: tuple[int, str] | None, limit: int
    ) -> tuple[list[Attachment], bool]:
        """Attachments newest first, and whether there are more."""
        view = await self._collections.find(collection)
        return await self._files.attachments(view.id, before, limit)

    async def detach(self, collection: str, file_id: str) -> str:
        """Takes the document out of the collection; returns the token of the write."""
        view = await self._collections.find(collection)
        await self._files.attachment(view.id, file_id)
        position = await self._replica.remove(view.id, [file_id])
        if not await self._files.detach(view.id, [file_id]):
            raise ResourceNotFound(f"file_id: {file_id!r} was detached meanwhile", field="file_id")
        return str(position)

    async def delete_collection(self, name: str) -> str:
        """Removes a collection with all it holds; returns the token of the write."""
        await self._replica.sync(_SYNC_LIMIT_S)  # the attachments are of the one that is there now
        view = await self._collections.find(name, "name")
        position = await self._replica.delete_collection(name)
        try:
            await self._files.detach_all(view.id)
        except DependencyDown:  # the collection is gone; the next start forgets the rest
            _LOG.warning("attachments_left", extra={"collection": name})
        return str(position)

    async def forget_orphans(self) -> None:
        """Forgets attachments of collections that were deleted while Redis went away."""
        attached = await self._files.attached_collections()
        # After it: then what has attachments is known here, if it is there.
        await self._replica.sync(_SYNC_LIMIT_S)
        living = {view.id for view in self._replica.collections()}
        for collection_id in attached - living:
            await self._files.detach_all(collection_id)

    async def _forget_if_gone(self, collection: str, collection_id: str) -> None:
        """A collection deleted while a file was attached must leave nothing behind."""
        await self._replica.sync(_SYNC_LIMIT_S)
        try:
            gone = self._replica.collection(collection).id != collection_id
        except CollectionNotFound:
            gone = True
        if gone:
            await self._files.detach_all(collection_id)
            raise CollectionNotFound(
                f"collection: {collection!r} was deleted meanwhile", field="collection"
            )

    def _num_bytes(self, collection: str, document_id: str) -> int:
        stored = self._replica.collection(collection).generation.get(document_id)
        if stored is None:
            return 0
        texts = sum(len(chunk.text.encode()) for chunk in stored.chunks)
        return int(stored.vectors.nbytes) + texts


def _told(error: OrreryError) -> AttachmentError:
    return AttachmentError(kind_of(error).reason, error.message, error.field or "")
