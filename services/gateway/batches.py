"""Ids of file batches, which say themselves what the batch is.

A batch is done when it is made, so nothing has to remember it: its id holds the time and the files,

    vsfb_ base64url( crc32 [4] | seconds since the epoch [8] | file id [12] ... )

and the check sum covers the vector store, too: an id belongs to one. Knows nothing of HTTP or gRPC.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from services.runtime.errors import ResourceNotFound

__all__ = ["FileBatch"]

_PREFIX = "vsfb_"
_FILE_ID = re.compile(r"file-([0-9a-f]{24})")
_CHECK_SUM_BYTES, _TIME_BYTES, _FILE_BYTES = 4, 8, 12


@dataclass(frozen=True, slots=True)
class FileBatch:
    """Files that were put into a vector store together. File ids are `file-<24 hex digits>`."""

    vector_store_id: str
    created_at: int
    file_ids: Sequence[str]

    @property
    def id(self) -> str:
        """The id that `parse` takes apart."""
        body = self.created_at.to_bytes(_TIME_BYTES)
        for file_id in self.file_ids:
            match = _FILE_ID.fullmatch(file_id)
            assert match is not None
            body += bytes.fromhex(match[1])
        data = _check_sum(self.vector_store_id, body) + body
        return _PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")

    @classmethod
    def parse(cls, vector_store_id: str, batch_id: str) -> FileBatch:
        """The batch of an id. Raises `ResourceNotFound` for one that was never given out."""
        data = _decoded(batch_id)[_CHECK_SUM_BYTES:]
        files = data[_TIME_BYTES:]
        batch = cls(
            vector_store_id,
            int.from_bytes(data[:_TIME_BYTES]),
            [
                f"file-{files[at : at + _FILE_BYTES].hex()}"
                for at in range(0, len(files) - len(files) % _FILE_BYTES, _FILE_BYTES)
            ],
        )
        if batch.id != batch_id:  # the check sum is a part of it
            raise ResourceNotFound("there is no batch of that id in this vector store")
        return batch


def _decoded(batch_id: str) -> bytes:
    if not batch_id.startswith(_PREFIX):
        return b""
    text = batch_id.removeprefix(_PREFIX)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _check_sum(vector_store_id: str, body: bytes) -> bytes:
    return zlib.crc32(vector_store_id.encode() + b"\0" + body).to_bytes(_CHECK_SUM_BYTES)
