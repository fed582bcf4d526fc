"""Uploaded files, and which of them were put into collections: what OpenAI's API stands on.

All of it is in Redis, under `orrery:files:`, shared by all replicas:

    orrery:files:index                   sorted set: file ids by the time they were made
    orrery:files:bytes                   sum of the files' sizes
    orrery:files:file:{id}               hash: name, purpose, num_bytes, created_at_ms, data
    orrery:files:attached                set: collection ids that have attachments
    orrery:files:attachments:{id}        hash: file id -> attachment, of one collection
    orrery:files:attachment-order:{id}   sorted set: file ids by the time of attaching

Attachments belong to a collection's id, not its name: a new collection of an old name has none.
Knows nothing of protobuf and of reading files.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, cast

import orjson
from redis.asyncio import Redis

from services.retrieval.checks import check_label
from services.retrieval.config import FileLimits
from services.retrieval.types import Metadata
from services.runtime.errors import InvalidRequest, Overloaded, ResourceNotFound
from services.runtime.store import store_errors

__all__ = ["Attachment", "AttachmentError", "FileInfo", "FileStore", "is_file_id"]

PREFIX = "orrery:files:"
MAX_PURPOSE_BYTES = 64

_FILE_ID = re.compile(r"file-[0-9a-f]{24}")

# KEYS index, bytes, file; ARGV id, created_at_ms, max_files, max_total_bytes, num_bytes, fields...
_CREATE = """
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 'files' end
local total = tonumber(redis.call('GET', KEYS[2]) or '0')
if total + tonumber(ARGV[5]) > tonumber(ARGV[4]) then return 'bytes' end
redis.call('HSET', KEYS[3], unpack(ARGV, 6))
redis.call('INCRBY', KEYS[2], ARGV[5])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 'ok'
"""

# KEYS index, bytes, file; ARGV id
_DELETE = """
local size = redis.call('HGET', KEYS[3], 'num_bytes')
if not size then return 0 end
redis.call('DEL', KEYS[3])
redis.call('DECRBY', KEYS[2], size)
redis.call('ZREM', KEYS[1], ARGV[1])
return 1
"""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file without its bytes."""

    id: str
    name: str
    purpose: str
    num_bytes: int
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class AttachmentError:
    """Why a file could not be read: reason, message and field as of the error."""

    reason: str
    message: str
    field: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that was put into a collection; `error` None = it is there."""

    file_id: str
    num_chunks: int
    num_bytes: int
    created_at_ms: int
    metadata: Metadata
    error: AttachmentError | None = None


def is_file_id(text: str) -> bool:
    """Whether it has the form of the ids made here."""
    return _FILE_ID.fullmatch(text) is not None


class FileStore:
    """Files and attachments. Every method raises `DependencyDown` while Redis is away."""

    def __init__(self, redis: Redis, limits: FileLimits) -> None:
        self._redis = redis
        self._limits = limits
        self._create = redis.register_script(_CREATE)
        self._delete = redis.register_script(_DELETE)

    # --- files --------------------------------------------------------------------------------

    async def create(self, name: str, purpose: str, data: bytes) -> FileInfo:
        """Keeps a file. Raises `InvalidRequest`, or `Overloaded` when there is no room."""
        self._check(name, purpose, data)
        info = FileInfo(
            id=f"file-{secrets.token_hex(12)}",
            name=name,
            purpose=purpose,
            num_bytes=len(data),
            created_at_ms=time.time_ns() // 1_000_000,
        )
        fields: list[Any] = [part for pair in asdict(info).items() for part in pair]
        limits = (self._limits.max_files, self._limits.max_total_bytes)
        with store_errors("uploading files"):
            answer = await self._create(
                keys=_keys(info.id),
                args=[info.id, info.created_at_ms, *limits, len(data), *fields, "data", data],
            )
        if answer == b"files":
            raise Overloaded(f"there are {limits[0]} files, which is as many as there may be")
        if answer == b"bytes":
            raise Overloaded(f"all files together may have {limits[1]} bytes; delete some first")
        return info

    async def get(self, file_id: str, field: str = "id") -> FileInfo:
        """Raises `ResourceNotFound`."""
        _check_file_id(file_id, field)
        with store_errors("reading files"):
            values = await _of(self._redis.hmget(_file(file_id), *_FIELDS))
        return _info(values) or _not_found(file_id, field)

    async def content(self, file_id: str, field: str = "id") -> tuple[FileInfo, bytes]:
        """A file and its bytes. Raises `ResourceNotFound`."""
        _check_file_id(file_id, field)
        with store_errors("reading files"):
            values = await _of(self._redis.hmget(_file(file_id), *_FIELDS, "data"))
        return _info(values[:-1]) or _not_found(file_id, field), bytes(values[-1])

    async def page(
        self, before: tuple[int, str] | None, limit: int, purpose: str
    ) -> tuple[list[FileInfo], bool]:
        """Files newest first, from before (created_at_ms, id) on, and whether there are more."""
        found: list[FileInfo] = []
        with store_errors("listing files"):
            async for ids in self._ids(f"{PREFIX}index", before, limit + 1):
                for info in await self._infos(ids):
                    if purpose in ("", info.purpose):
                        found.append(info)
                    if len(found) > limit:
                        return found[:limit], True
        return found, False

    async def delete(self, file_id: str) -> None:
        """Raises `ResourceNotFound`."""
        _check_file_id(file_id, "id")
        with store_errors("deleting files"):
            deleted = await self._delete(keys=_keys(file_id), args=[file_id])
        if not deleted:
            _not_found(file_id, "id")

    # --- attachments --------------------------------------------------------------------------

    async def attach(self, collection_id: str, attachment: Attachment) -> None:
        """Keeps, or replaces, what became of a file in a collection."""
        with store_errors("attaching files"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.sadd(f"{PREFIX}attached", collection_id)
                pipe.hset(_attachments(collection_id), attachment.file_id, orjson.dumps(attachment))
                pipe.zadd(
                    _attachment_order(collection_id),
                    {attachment.file_id: attachment.created_at_ms},
                )
                await pipe.execute()

    async def attachment(self, collection_id: str, file_id: str) -> Attachment:
        """Raises `ResourceNotFound`."""
        _check_file_id(file_id, "file_id")
        with store_errors("reading attachments"):
            value = await _of(self._redis.hget(_attachments(collection_id), file_id))
        if value is None:
            raise ResourceNotFound(
                f"file_id: {file_id!r} is not attached to the collection", field="file_id"
            )
        return _attachment(value)

    async def attachments(
        self, collection_id: str, before: tuple[int, str] | None, limit: int
    ) -> tuple[list[Attachment], bool]:
        """Attachments newest first, and whether there are more."""
        found: list[Attachment] = []
        with store_errors("listing attachments"):
            async for ids in self._ids(_attachment_order(collection_id), before, limit + 1):
                values = await _of(self._redis.hmget(_attachments(collection_id), ids))
                found += [_attachment(value) for value in values if value is not None]
                if len(found) > limit:
                    return found[:limit], True
        return found, False

    async def detach(self, collection_id: str, file_ids: Iterable[str]) -> int:
        """Forgets attachments; returns how many there were."""
        ids = list(file_ids)
        if not ids:
            return 0
        with store_errors("detaching files"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hdel(_attachments(collection_id), *ids)
                pipe.zrem(_attachment_order(collection_id), *ids)
                removed: list[int] = await pipe.execute()
        return removed[0]

    async def detach_all(self, collection_id: str) -> None:
        """Forgets the attachments of a collection that is gone."""
        with store_errors("detaching files"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(_attachments(collection_id), _attachment_order(collection_id))
                pipe.srem(f"{PREFIX}attached", collection_id)
                await pipe.execute()

    async def attached_collections(self) -> set[str]:
        """Ids of the collections that have attachments, gone ones perhaps included."""
        with store_errors("reading attachments"):
            members = await _of(self._redis.smembers(f"{PREFIX}attached"))
        return {bytes(member).decode() for member in members}

    # ------------------------------------------------------------------------------------------

    def _check(self, name: str, purpose: str, data: bytes) -> None:
        if not name:
            raise InvalidRequest("name: expected the file's name", field="name")
        check_label(name, "name")
        check_label(purpose, "purpose", MAX_PURPOSE_BYTES)
        if not data:
            raise InvalidRequest("data: the file is empty", field="data")
        if len(data) > self._limits.max_file_bytes:
            raise InvalidRequest(
                f"data: expected at most {self._limits.max_file_bytes} bytes, got {len(data)}",
                field="data",
            )

    async def _infos(self, ids: Sequence[str]) -> list[FileInfo]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for file_id in ids:
                pipe.hmget(_file(file_id), *_FIELDS)
            answers = await pipe.execute()
        infos = (_info(values) for values in answers)
        return [info for info in infos if info is not None]  # deleted meanwhile

    async def _ids(
        self, key: str, before: tuple[int, str] | None, batch: int
    ) -> AsyncIterator[list[str]]:
        """Members of a sorted set in falling order of (score, member), in batches with some.

        Each once: what is added meanwhile moves the others into the next batch again.
        """
        highest = "+inf" if before is None else str(before[0])
        offset = 0
        while True:
            entries = await _of(
                self._redis.zrevrangebyscore(
                    key, highest, "-inf", start=offset, num=batch, withscores=True
                )
            )
            ids = [(int(score), bytes(member).decode()) for member, score in entries]
            if wanted := [entry for entry in ids if before is None or entry < before]:
                yield [member for _, member in wanted]
                before = wanted[-1]
            if len(entries) < batch:
                return
            offset += batch


_FIELDS = ("id", "name", "purpose", "num_bytes", "created_at_ms")


def _keys(file_id: str) -> list[str]:
    return [f"{PREFIX}index", f"{PREFIX}bytes", _file(file_id)]


def _file(file_id: str) -> str:
    return f"{PREFIX}file:{file_id}"


def _attachments(collection_id: str) -> str:
    return f"{PREFIX}attachments:{collection_id}"


def _attachment_order(collection_id: str) -> str:
    return f"{PREFIX}attachment-order:{collection_id}"


async def _of(answer: object) -> Any:
    """What a command answers; redis types its commands for both of its clients at once."""
    return await cast(Awaitable[Any], answer)


def _check_file_id(file_id: str, field: str) -> None:
    if not is_file_id(file_id):
        raise InvalidRequest(f"{field}: expected file- and 24 hexadecimal digits", field=field)


def _not_found(file_id: str, field: str) -> NoReturn:
    raise ResourceNotFound(f"{field}: there is no file {file_id!r}", field=field)


def _info(values: Sequence[bytes | None]) -> FileInfo | None:
    if values[0] is None:
        return None
    file_id, name, purpose, num_bytes, created_at_ms = (bytes(value or b"") for value in values)
    return FileInfo(
        file_id.decode(), name.decode(), purpose.decode(), int(num_bytes), int(created_at_ms)
    )


def _attachment(value: bytes) -> Attachment:
    fields = orjson.loads(value)
    error = fields.pop("error")
    metadata = {
        name: tuple(entry) if isinstance(entry, list) else entry
        for name, entry in fields.pop("metadata").items()
    }
    return Attachment(
        **fields, metadata=metadata, error=None if error is None else AttachmentError(**error)
    )
