"""Conversations in a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.rag.config import ConversationConfig
from services.rag.conversations import Conversations
from services.rag.types import Abstention, Turn
from services.runtime import store
from services.runtime.errors import DependencyDown, ResourceNotFound
from tests.fakes.rag_services import until
from tests.fakes.redis_server import RedisServer, redis_server

TURN = Turn("Who?", "Osker")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    client = store.connect(server.url)
    await client.flushall()
    yield client
    await client.aclose()


def conversations(redis: Redis | None, **settings: int) -> Conversations:
    return Conversations(redis, ConversationConfig(**settings))


async def test_turns_come_back_in_order(redis: Redis) -> None:
    kept = conversations(redis, ttl_s=100)
    refused = Turn("And?", "The documents do not say.", Abstention.MODEL)
    await kept.append("key", "c-1", TURN)
    await kept.append("key", "c-1", refused)
    found = await kept.get("key", "c-1")
    assert found.turns == (TURN, refused)
    assert 95 <= found.ttl_s <= 100


async def test_length_is_limited_to_the_newest(redis: Redis) -> None:
    kept = conversations(redis, max_turns=3, max_prompt_turns=2)
    for number in range(5):
        await kept.append(None, "c", Turn(f"q{number}", "a"))
    assert [turn.question for turn in (await kept.get(None, "c")).turns] == ["q2", "q3", "q4"]
    assert [turn.question for turn in await kept.last_turns(None, "c")] == ["q3", "q4"]
    assert await conversations(redis, max_prompt_turns=0).last_turns(None, "c") == []


async def test_another_key_has_conversations_of_its_own(redis: Redis) -> None:
    kept = conversations(redis)
    await kept.append("mine", "c", TURN)
    assert await kept.last_turns("theirs", "c") == []
    with pytest.raises(ResourceNotFound):
        await kept.get(None, "c")
    (key,) = await redis.keys("*")
    assert key.startswith(b"orrery:rag:conversation:")
    assert b"mine" not in key


async def test_deleted_conversation_is_not_found(redis: Redis) -> None:
    kept = conversations(redis)
    await kept.append(None, "c", TURN)
    await kept.delete(None, "c")
    with pytest.raises(ResourceNotFound) as caught:
        await kept.delete(None, "c")
    assert caught.value.field == "conversation_id"


async def test_redis_that_is_away_is_a_dependency_that_is_down(tmp_path: Path) -> None:
    with redis_server(tmp_path) as own:
        client = store.connect(own.url)
        kept = conversations(client)
        own.kill()
        for attempt in (
            kept.last_turns(None, "c"),
            kept.append(None, "c", TURN),
            kept.get(None, "c"),
            kept.delete(None, "c"),
        ):
            with pytest.raises(DependencyDown):
                await attempt
            assert not kept.available
        own.restart()
        await kept.append(None, "c", TURN)
        assert await kept.last_turns(None, "c") == [TURN]
        await kept.close()


async def test_without_a_store_there_are_no_conversations() -> None:
    kept = conversations(None)
    kept.watch(lambda _share: None)  # there is nothing to be asked
    assert not kept.available
    with pytest.raises(DependencyDown):
        await kept.last_turns(None, "c")
    await kept.close()


async def test_whoever_watches_is_told_whether_redis_answers(server: RedisServer) -> None:
    told: list[bool] = []
    client = store.connect(server.url)
    kept = Conversations(client, ConversationConfig(), told.append)
    await kept.append(None, "c", TURN)
    assert set(told) == {True}
    server.kill()
    with pytest.raises(DependencyDown):
        await kept.get(None, "c")
    assert told[-1] is False
    server.restart()
    await kept.append(None, "c", TURN)
    assert told[-1] is True
    await client.aclose()


async def test_what_becomes_of_redis_is_told_while_nobody_converses(server: RedisServer) -> None:
    told: list[bool] = []
    kept = Conversations(store.connect(server.url), ConversationConfig(), told.append)
    memory: list[float] = []
    kept.watch(memory.append)
    await until(lambda: bool(memory))
    assert memory[-1] == 0  # nothing limits it
    server.kill()
    await until(lambda: not kept.available)
    assert told[-1] is False
    server.restart()
    await until(lambda: kept.available)
    assert told[-1] is True
    await kept.close()
