"""The log in Redis: one stream for all collections, and the scripts that keep it whole.

    orrery:retrieval:log           stream; fields: p = previous position, k = kind,
                                   c = collection id, h = header, b = body
    orrery:retrieval:meta          hash; log_id, tail = position of the last entry,
                                   snapshot = position of the newest snapshot
    orrery:retrieval:collections   hash; name -> id of every living collection

Every entry names the one before it, so the log is a chain: a reader sees at once that entries are
missing (trimmed away) or that the history is another one (the store was restored from older data).
Scripts run atomically. Knows nothing of what the entries mean.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from services.retrieval.log.entries import Encoded, Kind, LogEntry, UnreadableEntry
from services.retrieval.log.position import START, Position
from services.runtime.errors import (
    AlreadyExists,
    CollectionNotFound,
    DependencyDown,
    Internal,
    NotReady,
    OrreryError,
)
from services.runtime.store import CALL_TIMEOUT_S, store_errors

__all__ = ["Append", "Head", "LogStream", "Page"]

PREFIX = "orrery:retrieval:"
LOG, META, COLLECTIONS = f"{PREFIX}log", f"{PREFIX}meta", f"{PREFIX}collections"
WHAT = "the retrieval log"
RETRY_AFTER_S = 1.0

_OPEN = """
local id = redis.call('HGET', KEYS[2], 'log_id')
if not id and ARGV[1] ~= '' and redis.call('EXISTS', KEYS[1], KEYS[3]) == 0 then
  redis.call('HSET', KEYS[2], 'log_id', ARGV[1], 'tail', '0-0')
end
return redis.call('HMGET', KEYS[2], 'log_id', 'tail', 'snapshot')
"""

# Appends one entry, unless it would not be true of the log it lands in. A call that arrives after
# its caller has given up does nothing, so that it cannot undo what the caller did next.
_APPEND = """
local log_id, known, deadline = ARGV[1], ARGV[2], tonumber(ARGV[3])
local kind, name, id = ARGV[4], ARGV[5], ARGV[6]
local meta = redis.call('HMGET', KEYS[2], 'log_id', 'tail')
if meta[1] ~= log_id then return {'OTHER_LOG'} end
local function parts(position)
  local ms, sequence = string.match(position, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(sequence)
end
local tail_ms, tail_sequence = parts(meta[2])
local known_ms, known_sequence = parts(known)
if tail_ms < known_ms or (tail_ms == known_ms and tail_sequence < known_sequence) then
  return {'BEHIND', meta[2]}
end
local now = redis.call('TIME')
if tonumber(now[1]) * 1000 + tonumber(now[2]) / 1000 > deadline then return {'LATE'} end
local found = redis.call('HGET', KEYS[3], name)
if kind == 'create' then
  if found then return {'EXISTS'} end
else
  if not found or (id ~= '' and found ~= id) then return {'MISSING'} end
  id = found
end
local position = redis.call(
  'XADD', KEYS[1], '*', 'p', meta[2], 'k', kind, 'c', id, 'h', ARGV[7], 'b', ARGV[8])
redis.call('HSET', KEYS[2], 'tail', position)
if kind == 'create' then redis.call('HSET', KEYS[3], name, id) end
if kind == 'delete' then redis.call('HDEL', KEYS[3], name) end
return {'OK', position}
"""

# Entries one by one until enough bytes are together: XREAD's COUNT cannot bound them. They come as
# one string, each value after its length, as the client takes its time over many small replies.
_READ = """
local after, max_entries, max_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local values, entries, bytes = {}, 0, 0
local function add(value)
  values[#values + 1] = struct.pack('>I4', #value) .. value
  bytes = bytes + #value
end
while entries < max_entries and bytes < max_bytes do
  local found = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', 1)
  if #found == 0 then break end
  after = found[1][1]
  add(after)
  local fields = found[1][2]
  for index = 2, 10, 2 do add(fields[index]) end
  entries = entries + 1
end
local meta = redis.call('HMGET', KEYS[2], 'log_id', 'tail', 'snapshot')
return {meta[1], meta[2], meta[3], table.concat(values)}
"""


# Only in a log that has the very entries up to which the snapshots go: one that was restored from
# older data would lose what nothing else holds.
_NOTE = """
if redis.call('HGET', KEYS[2], 'log_id') ~= ARGV[1] then return 0 end
for index = 2, 3 do
  local position = ARGV[index]
  if position ~= '0-0' and #redis.call('XRANGE', KEYS[1], position, position) == 0 then return 0 end
end
redis.call('HSET', KEYS[2], 'snapshot', ARGV[2])
redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[3])
return 1
"""


@dataclass(frozen=True, slots=True)
class Head:
    """The log as a whole: which one it is, its last entry, and up to where there is a snapshot."""

    log_id: str | None  # None: nothing was ever written
    tail: Position
    snapshot: Position | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, oldest first, and the head at the same moment."""

    head: Head
    entries: tuple[LogEntry, ...]

    @property
    def num_bytes(self) -> int:
        return sum(entry.num_bytes for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Append:
    """An entry to be. `collection_id` "" = whichever has the name."""

    name: str
    collection_id: str
    encoded: Encoded


class LogStream:
    """Reads and appends. All methods raise `DependencyDown` while the store is away."""

    def __init__(self, redis: Redis, *, append_timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._redis = redis
        self._append_timeout_ms = append_timeout_s * 1000
        self._clock_ahead_ms: float | None = None  # the store's clock minus ours

    async def open(self, new_log_id: str | None = None) -> Head:
        """The head. A log that never was is begun with `new_log_id`, unless that is None."""
        with store_errors(WHAT):
            found = await self._call(_OPEN, (LOG, META, COLLECTIONS), (new_log_id or "",))
        return _head(found)

    async def read(self, after: Position, max_entries: int, max_bytes: int) -> Page:
        """The entries after a position: at most `max_bytes` and one entry. `UnreadableEntry`."""
        with store_errors(WHAT):
            *head, packed = await self._call(
                _READ, (LOG, META), (str(after), max_entries, max_bytes)
            )
        return Page(_head(head), tuple(_entries(packed)))

    async def wait(self, after: Position, limit_s: float) -> None:
        """Returns when there are entries after a position, or after `limit_s` seconds."""
        with store_errors(WHAT):
            await self._redis.xread({LOG: str(after)}, count=1, block=int(limit_s * 1000))

    async def forget_connections(self) -> None:
        """After a loss: idle connections are lost as well, and would each fail one more call."""
        await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def note_snapshots(self, log_id: str, newest: Position, oldest: Position) -> bool:
        """Tells all replicas of the newest snapshot, and drops the entries before the oldest.

        Does nothing and returns False when the log is not the one that the snapshots are of.
        """
        with store_errors(WHAT):
            noted = await self._call(_NOTE, (LOG, META), (log_id, str(newest), str(oldest)))
        return bool(noted)

    async def append(
        self, log_id: str, known: Position, appends: Sequence[Append]
    ) -> list[Position | OrreryError]:
        """Appends in one round trip, each by itself; says of each its position or its error.

        `known` is a position that the log is known to have reached. Raises `DependencyDown` when
        the outcome of all is unknown; an entry whose caller has been told so is never appended
        later than `append_timeout_s` after the call.
        """
        deadline = await self._deadline_ms()
        try:
            with store_errors(WHAT):
                replies = await self._append(log_id, known, deadline, appends)
        except DependencyDown:
            self._clock_ahead_ms = None
            raise
        if any(reply == [b"LATE"] for reply in replies):
            self._clock_ahead_ms = None  # the store's clock was set, or it was very busy
        return [_outcome(append, reply) for append, reply in zip(appends, replies, strict=True)]

    async def _append(
        self, log_id: str, known: Position, deadline_ms: float, appends: Sequence[Append]
    ) -> list[Any]:
        sha = _sha(_APPEND)
        replies: list[Any] = [None] * len(appends)
        left = list(range(len(appends)))
        while left:
            pipeline = self._redis.pipeline(transaction=False)
            for index in left:
                append = appends[index]
                pipeline.execute_command(
                    *("EVALSHA", sha, 3, LOG, META, COLLECTIONS),
                    *(log_id, str(known), f"{deadline_ms:.3f}"),
                    *(append.encoded.kind.value, append.name, append.collection_id),
                    *(append.encoded.header, append.encoded.body),
                )
            answers = await pipeline.execute(raise_on_error=False)
            for index, answer in zip(left, answers, strict=True):
                replies[index] = answer
            # A restarted store has forgotten its scripts; those calls did nothing.
            left = [index for index in left if isinstance(replies[index], NoScriptError)]
            if left:
                await self._redis.script_load(_APPEND)
        return replies

    async def _deadline_ms(self) -> float:
        """Until when, by the store's clock, an append sent now may still happen."""
        if self._clock_ahead_ms is None:
            with store_errors(WHAT):
                seconds, microseconds = await self._redis.time()
            # As if the store had looked just now: the deadline is rather early than late.
            self._clock_ahead_ms = seconds * 1000 + microseconds / 1000 - time.monotonic() * 1000
        return time.monotonic() * 1000 + self._clock_ahead_ms + self._append_timeout_ms

    async def _call(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        try:
            try:
                return await self._redis.evalsha(_sha(script), len(keys), *keys, *arguments)
            except NoScriptError:
                return await self._redis.eval(script, len(keys), *keys, *arguments)
        except ResponseError as error:
            raise _store_error(error) from error


def _sha(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _head(values: Sequence[bytes | None]) -> Head:
    log_id, tail, snapshot = values
    return Head(
        log_id=None if log_id is None else log_id.decode(),
        tail=START if tail is None else Position.parse(tail.decode()),
        snapshot=None if snapshot is None else Position.parse(snapshot.decode()),
    )


def _entries(packed: bytes) -> Iterator[LogEntry]:
    values = _values(packed)
    for id_ in values:
        previous, kind, collection_id, header, body = islice(values, 5)
        position = Position.parse(id_.decode())
        try:
            encoded = Encoded(Kind(kind.decode()), header, body)
        except ValueError as error:
            raise UnreadableEntry(f"entry {position}: of a kind that is not known") from error
        yield LogEntry(position, Position.parse(previous.decode()), collection_id.decode(), encoded)


def _values(packed: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(packed):
        end = start + 4 + int.from_bytes(packed[start : start + 4], "big")
        yield packed[start + 4 : end]
        start = end


def _outcome(append: Append, reply: object) -> Position | OrreryError:
    if isinstance(reply, ResponseError):
        return _store_error(reply)
    assert isinstance(reply, list)
    match [part.decode() for part in reply]:
        case ["OK", position]:
            return Position.parse(position)
        case ["EXISTS"]:
            return AlreadyExists(f"name: collection {append.name!r} exists", field="name")
        case ["MISSING"]:
            return CollectionNotFound(f"no collection {append.name!r}", field="collection")
        case ["LATE"]:
            return DependencyDown(f"{WHAT}: the store was too slow", retry_after_s=RETRY_AFTER_S)
        case ["BEHIND", tail]:
            return NotReady(f"{WHAT} went back to {tail}: acknowledged writes are missing from it")
        case ["OTHER_LOG"]:
            return NotReady(f"{WHAT} is not the one that this replica follows")
        case other:
            raise AssertionError(f"unexpected reply {other}")


def _store_error(error: ResponseError) -> OrreryError:
    """What a call that got this reply has to say: of redis-py's errors, only some have a class."""
    try:
        with store_errors(WHAT):
            raise error
    except DependencyDown as down:
        return down
    except ResponseError:
        return Internal(f"{WHAT}: {error}")
