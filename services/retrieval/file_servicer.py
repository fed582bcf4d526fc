"""`FileService`: uploaded files and the collections they were put into; protobuf in and out.

It shares its replica, its lifecycle and its policy with `RetrievalServicer`.
"""
# ruff: noqa: N802 - methods are named as the RPCs

from __future__ import annotations

from orrery.v1 import common_pb2
from orrery.v1 import file_pb2 as pb
from services.retrieval import file_messages, messages, pages
from services.retrieval.config import RetrievalConfig
from services.retrieval.service import RetrievalService
from services.retrieval.timeline import Timeline
from services.runtime.peer import Caller
from services.runtime.rpc import Call, RpcPolicy, unary

__all__ = ["FileServicer"]


class FileServicer:
    """The RPCs of files and attachments."""

    def __init__(self, config: RetrievalConfig, service: RetrievalService, rpc: RpcPolicy) -> None:
        self._limits = config.limits
        self._files = service.files
        self._attachments = service.attachments
        self._rpc = rpc

    @property
    def rpc(self) -> RpcPolicy:
        """What every call goes through."""
        return self._rpc

    @unary(pb.CreateFileResponse)
    async def CreateFile(self, request: pb.CreateFileRequest, call: Call) -> pb.CreateFileResponse:
        """Keeps a file."""
        async with self._timeline(call).within_deadline():
            info = await self._files.create(request.name, request.purpose, request.data)
        return pb.CreateFileResponse(file=file_messages.stored_file(info), timing=_total(call))

    @unary(pb.GetFileResponse)
    async def GetFile(self, request: pb.GetFileRequest, call: Call) -> pb.GetFileResponse:
        """A file without its bytes."""
        async with self._timeline(call).within_deadline():
            info = await self._files.get(request.id)
        return pb.GetFileResponse(file=file_messages.stored_file(info), timing=_total(call))

    @unary(pb.ListFilesResponse)
    async def ListFiles(self, request: pb.ListFilesRequest, call: Call) -> pb.ListFilesResponse:
        """Files newest first, a page at a time."""
        limit = self._page_limit(request)
        before = pages.read_time(request.page_token)
        async with self._timeline(call).within_deadline():
            infos, more = await self._files.page(before, limit, request.purpose)
        last = infos[-1] if more else None
        return pb.ListFilesResponse(
            files=[file_messages.stored_file(info) for info in infos],
            next_page_token=pages.token_of_time(last.created_at_ms, last.id) if last else "",
            timing=_total(call),
        )

    @unary(pb.DeleteFileResponse)
    async def DeleteFile(self, request: pb.DeleteFileRequest, call: Call) -> pb.DeleteFileResponse:
        """Removes the file; collections keep what was made of it."""
        async with self._timeline(call).within_deadline():
            await self._files.delete(request.id)
        return pb.DeleteFileResponse(timing=_total(call))

    @unary(pb.GetFileContentResponse)
    async def GetFileContent(
        self, request: pb.GetFileContentRequest, call: Call
    ) -> pb.GetFileContentResponse:
        """A file's bytes."""
        async with self._timeline(call).within_deadline():
            _, data = await self._files.content(request.id)
        return pb.GetFileContentResponse(data=data, timing=_total(call))

    @unary(pb.AttachFileResponse)
    async def AttachFile(self, request: pb.AttachFileRequest, call: Call) -> pb.AttachFileResponse:
        """Reads a file into a collection; answers when that is done."""
        metadata = messages.metadata_of(request.metadata, "metadata")
        caller = Caller.of(call, self._limits.default_timeout_s)
        async with self._timeline(call).within_deadline():
            attached = await self._attachments.attach(
                request.collection, request.file_id, metadata, caller
            )
        return pb.AttachFileResponse(
            attachment=file_messages.attachment(request.collection, attached.attachment),
            consistency_token=attached.token,
            timing=_total(call),
        )

    @unary(pb.GetAttachmentResponse)
    async def GetAttachment(
        self, request: pb.GetAttachmentRequest, call: Call
    ) -> pb.GetAttachmentResponse:
        """What became of a file in a collection."""
        async with self._timeline(call).within_deadline():
            kept = await self._attachments.get(request.collection, request.file_id)
        return pb.GetAttachmentResponse(
            attachment=file_messages.attachment(request.collection, kept), timing=_total(call)
        )

    @unary(pb.ListAttachmentsResponse)
    async def ListAttachments(
        self, request: pb.ListAttachmentsRequest, call: Call
    ) -> pb.ListAttachmentsResponse:
        """A collection's attachments newest first, a page at a time."""
        limit = self._page_limit(request)
        before = pages.read_time(request.page_token)
        async with self._timeline(call).within_deadline():
            kept, more = await self._attachments.page(request.collection, before, limit)
        last = kept[-1] if more else None
        return pb.ListAttachmentsResponse(
            attachments=[file_messages.attachment(request.collection, one) for one in kept],
            next_page_token=pages.token_of_time(last.created_at_ms, last.file_id) if last else "",
            timing=_total(call),
        )

    @unary(pb.DetachFileResponse)
    async def DetachFile(self, request: pb.DetachFileRequest, call: Call) -> pb.DetachFileResponse:
        """Takes the document out of the collection; the file stays."""
        async with self._timeline(call).within_deadline():
            token = await self._attachments.detach(request.collection, request.file_id)
        return pb.DetachFileResponse(consistency_token=token, timing=_total(call))

    def _timeline(self, call: Call) -> Timeline:
        caller = Caller.of(call, self._limits.default_timeout_s)
        return Timeline(call.arrival_s, caller.deadline_s)

    def _page_limit(self, request: pb.ListFilesRequest | pb.ListAttachmentsRequest) -> int:
        size = request.page_size if request.HasField("page_size") else None
        return pages.page_limit(size, self._limits.max_page_size)


def _total(call: Call) -> common_pb2.Timing:
    return common_pb2.Timing(total_ns=call.total_ns)
