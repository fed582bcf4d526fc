"""A vector store as the retrieval service has it: a collection and the files attached to it.

What several of OpenAI's routes need of it. Knows nothing of HTTP.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from orrery import methods
from orrery.v1 import file_pb2
from orrery.v1 import retrieval_pb2 as pb
from services.gateway.concurrency import map_bounded
from services.gateway.paging import PAGE_SIZE, all_pages
from services.gateway.schemas.vector_stores import ChunkingStrategy
from services.gateway.translate.filters import metadata_values
from services.gateway.upstream import Caller, Service
from services.runtime.errors import InvalidRequest, ResourceNotFound

__all__ = ["Stores", "check_chunking", "created_ms", "created_ms_of_id", "new_id"]

_ID = re.compile(r"vs_([0-9a-f]{12})[0-9a-f]{12}")
_NAMES: Mapping[str, str] = MappingProxyType(
    {"collection": "vector_store_id", "name": "vector_store_id", "metadata": "attributes"}
)


def new_id() -> str:
    """`vs_<24 hex digits>`: the time in milliseconds, then chance."""
    return f"vs_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"


def created_ms_of_id(vector_store_id: str) -> int | None:
    """When it was made; None for a collection that has a name of its own."""
    match = _ID.fullmatch(vector_store_id)
    return None if match is None else int(match[1], 16)


def created_ms(collection: pb.Collection) -> int:
    """When it was made, by the clock that made its id where it has one."""
    of_id = created_ms_of_id(collection.name)
    return collection.created_at.ToMilliseconds() if of_id is None else of_id


@dataclass(frozen=True, slots=True)
class Stores:
    """The vector stores, on behalf of one caller. `token`: the write that reads must see."""

    retrieval: Service
    caller: Caller
    token: str = ""

    async def get(self, vector_store_id: str) -> pb.Collection:
        """Raises `CollectionNotFound`."""
        request = pb.GetCollectionRequest(name=vector_store_id, consistency_token=self.token)
        response = await self.retrieval.call(methods.GET_COLLECTION, request, self.caller, _NAMES)
        return response.collection

    async def all(self) -> list[pb.Collection]:
        """The newest first."""

        async def fetch(page_token: str) -> tuple[Sequence[pb.Collection], str]:
            request = pb.ListCollectionsRequest(
                page_size=PAGE_SIZE, page_token=page_token, consistency_token=self.token
            )
            response = await self.retrieval.call(methods.LIST_COLLECTIONS, request, self.caller)
            return response.collections, response.next_page_token

        collections = await all_pages(fetch)
        return sorted(collections, key=lambda c: (created_ms(c), c.name), reverse=True)

    async def attachments(self, vector_store_id: str) -> list[file_pb2.Attachment]:
        """The files of one, the newest first."""

        async def fetch(page_token: str) -> tuple[Sequence[file_pb2.Attachment], str]:
            request = file_pb2.ListAttachmentsRequest(
                collection=vector_store_id, page_size=PAGE_SIZE, page_token=page_token
            )
            response = await self.retrieval.call(
                methods.LIST_ATTACHMENTS, request, self.caller, _NAMES
            )
            return response.attachments, response.next_page_token

        return await all_pages(fetch)

    async def attachment(self, vector_store_id: str, file_id: str) -> file_pb2.Attachment:
        """Raises `CollectionNotFound`, `ResourceNotFound`."""
        request = file_pb2.GetAttachmentRequest(collection=vector_store_id, file_id=file_id)
        response = await self.retrieval.call(methods.GET_ATTACHMENT, request, self.caller, _NAMES)
        return response.attachment

    async def attach(
        self, vector_store_id: str, file_id: str, attributes: Mapping[str, Any] | None
    ) -> file_pb2.AttachFileResponse:
        """Reads a file in; what cannot be read is an attachment that failed."""
        request = file_pb2.AttachFileRequest(
            collection=vector_store_id, file_id=file_id, metadata=metadata_values(attributes)
        )
        return await self.retrieval.call(methods.ATTACH_FILE, request, self.caller, _NAMES)

    async def attach_all(
        self, vector_store_id: str, files: Sequence[tuple[str, Mapping[str, Any] | None]]
    ) -> list[file_pb2.AttachFileResponse]:
        """Files with their attributes, some at the same time."""

        async def attach(
            file: tuple[str, Mapping[str, Any] | None],
        ) -> file_pb2.AttachFileResponse:
            return await self.attach(vector_store_id, *file)

        return await map_bounded(attach, files)

    async def check_files(self, file_ids: Sequence[str], field: str) -> None:
        """Raises, naming the entry of `field`, when one is there twice or is no file.

        Called before anything is written, so that a wrong id leaves nothing behind.
        """
        for index, file_id in enumerate(file_ids):
            if file_id in file_ids[:index]:
                name = f"{field}[{index}]"
                raise InvalidRequest(f"{name}: expected different files", field=name)

        async def check(index: int) -> None:
            try:
                request = file_pb2.GetFileRequest(id=file_ids[index])
                await self.retrieval.call(methods.GET_FILE, request, self.caller)
            except ResourceNotFound as error:
                error.field = f"{field}[{index}]"
                raise

        await map_bounded(check, range(len(file_ids)))


def check_chunking(
    strategy: ChunkingStrategy | None, chunking: pb.ChunkingConfig, field: str
) -> None:
    """Raises `InvalidRequest` unless a file is to be cut as its vector store cuts files."""
    if strategy is None or strategy.static is None:
        return
    static = strategy.static
    wanted = (static.max_chunk_size_tokens, static.chunk_overlap_tokens)
    if wanted != (chunking.max_tokens, chunking.overlap_tokens):
        raise InvalidRequest(
            f"{field}: expected auto, or the vector store's own: at most {chunking.max_tokens} "
            f"tokens, {chunking.overlap_tokens} of them overlapping",
            field=field,
        )
