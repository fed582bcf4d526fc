"""Protobuf messages of `file.proto` from the domain, field by field, no decisions."""

from __future__ import annotations

from orrery.v1 import file_pb2 as pb
from orrery.v1 import retrieval_pb2
from services.retrieval.files import Attachment, FileInfo
from services.retrieval.messages import put_metadata, timestamp

__all__ = ["attachment", "stored_file"]


def stored_file(info: FileInfo) -> pb.StoredFile:
    """A file without its bytes."""
    return pb.StoredFile(
        id=info.id,
        name=info.name,
        purpose=info.purpose,
        num_bytes=info.num_bytes,
        created_at=timestamp(info.created_at_ms),
    )


def attachment(collection: str, kept: Attachment) -> pb.Attachment:
    """What became of a file in a collection."""
    message = pb.Attachment(
        collection=collection,
        file_id=kept.file_id,
        status=pb.ATTACHMENT_STATUS_COMPLETED,
        num_chunks=kept.num_chunks,
        num_bytes=kept.num_bytes,
        created_at=timestamp(kept.created_at_ms),
    )
    if kept.error is not None:
        message.status = pb.ATTACHMENT_STATUS_FAILED
        message.error.CopyFrom(
            retrieval_pb2.ItemError(
                reason=kept.error.reason, message=kept.error.message, field=kept.error.field
            )
        )
    put_metadata(message.metadata, kept.metadata)
    return message
