"""Conversations in Redis: a list of turns each, forgotten some time after the last one.

Ids are the callers' own, so each API key has a space of its own: the key's name in Redis is a hash
of both, and tells nothing of either. Knows nothing of how questions are answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from services.rag.config import ConversationConfig
from services.rag.types import Abstention, Turn
from services.runtime import store
from services.runtime.errors import DependencyDown, InvalidRequest, ResourceNotFound
from services.runtime.store import store_errors

__all__ = ["Conversation", "Conversations", "check_conversation_id"]

_PREFIX = "orrery:rag:conversation:"
_WHAT = "conversation_id"
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Its turns, oldest first, and in how many seconds it is forgotten."""

    turns: tuple[Turn, ...]
    ttl_s: int


def check_conversation_id(conversation_id: str) -> None:
    """Raises `InvalidRequest` for what can name no conversation."""
    if not _ID.fullmatch(conversation_id):
        raise InvalidRequest(
            "conversation_id: expected 1 to 128 letters, digits or '._:-'", field="conversation_id"
        )


class Conversations:
    """All calls raise `DependencyDown` while Redis is away, or where there is none."""

    def __init__(
        self,
        redis: Redis | None,
        config: ConversationConfig,
        observe: Callable[[bool], None] = lambda _available: None,
    ) -> None:
        """`observe` is told whether Redis answered, whenever it was asked."""
        self._redis = redis
        self._config = config
        self._tell = observe
        self._available = False
        self._watching: asyncio.Task[None] | None = None
        if redis is not None:
            self._observe(True)  # until it does not answer

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was last asked."""
        return self._available

    def watch(self, observe_memory: Callable[[float], None]) -> None:
        """Asks Redis now and then from here on, until `close`, also while nobody converses.

        `observe_memory` is told which share of its memory is in use.
        """
        if self._redis is not None:
            watching = store.watch(self._redis, self._observe, observe_memory)
            self._watching = asyncio.create_task(watching)

    async def last_turns(self, api_key: str | None, conversation_id: str) -> list[Turn]:
        """The turns that go before the model, oldest first; none of a new conversation."""
        count = self._config.max_prompt_turns
        if not count:
            return []
        redis = self._store()
        with store_errors(_WHAT, self._observe):
            items = await redis.lrange(_key(api_key, conversation_id), -count, -1)
        return _turns(items)

    async def append(self, api_key: str | None, conversation_id: str, turn: Turn) -> None:
        """Adds a turn; the oldest beyond the limit are forgotten."""
        key = _key(api_key, conversation_id)
        redis = self._store()
        with store_errors(_WHAT, self._observe):
            async with redis.pipeline(transaction=True) as pipe:
                pipe.rpush(key, _item(turn))
                pipe.ltrim(key, -self._config.max_turns, -1)
                pipe.expire(key, self._config.ttl_s)
                await pipe.execute()

    async def get(self, api_key: str | None, conversation_id: str) -> Conversation:
        """The whole conversation. Raises `ResourceNotFound`."""
        key = _key(api_key, conversation_id)
        redis = self._store()
        with store_errors(_WHAT, self._observe):
            async with redis.pipeline(transaction=True) as pipe:
                pipe.lrange(key, 0, -1)
                pipe.ttl(key)
                items, ttl_s = await pipe.execute()
        if not items:
            raise _not_found()
        return Conversation(tuple(_turns(items)), max(0, ttl_s))

    async def delete(self, api_key: str | None, conversation_id: str) -> None:
        """Forgets the conversation. Raises `ResourceNotFound`."""
        redis = self._store()
        with store_errors(_WHAT, self._observe):
            num_deleted = await redis.delete(_key(api_key, conversation_id))
        if not num_deleted:
            raise _not_found()

    async def close(self) -> None:
        """Closes the connections."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        if self._redis is not None:
            await self._redis.aclose()

    def _observe(self, available: bool) -> None:
        self._available = available
        self._tell(available)

    def _store(self) -> Redis:
        if self._redis is None:
            raise DependencyDown("conversation_id: the service has no store for conversations")
        return self._redis


def _key(api_key: str | None, conversation_id: str) -> str:
    # The length keeps key and id apart.
    scope = f"{len(api_key or '')}:{api_key or ''}:{conversation_id}"
    return _PREFIX + hashlib.sha256(scope.encode()).hexdigest()


def _item(turn: Turn) -> str:
    abstention = None if turn.abstention is None else turn.abstention.value
    return json.dumps({"question": turn.question, "answer": turn.answer, "abstention": abstention})


def _turns(items: Sequence[bytes | str]) -> list[Turn]:
    turns = []
    for item in items:
        fields = json.loads(item)
        abstention = fields["abstention"]
        turns.append(
            Turn(
                fields["question"],
                fields["answer"],
                None if abstention is None else Abstention(abstention),
            )
        )
    return turns


def _not_found() -> ResourceNotFound:
    return ResourceNotFound("conversation_id: no such conversation", field="conversation_id")
