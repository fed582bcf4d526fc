"""The connection to Redis: errors that pass by themselves come as `DependencyDown`."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from services.runtime.config import Settings, SettingsError
from services.runtime.errors import DependencyDown
from services.runtime.store import connect, store_errors, watch
from tests.fakes.redis_server import redis_server


async def test_call_to_nobody_is_dependency_down_naming_who_needs_it() -> None:
    with socket.socket() as probe:  # bound and not listening: connections are refused
        probe.bind(("127.0.0.1", 0))
        redis = connect(f"redis://127.0.0.1:{probe.getsockname()[1]}")
        expected = pytest.raises(DependencyDown, match="the log: the store does not answer")
        with expected as caught, store_errors("the log"):
            await redis.ping()
        assert caught.value.retry_after_s == 1.0
        await redis.aclose()


async def test_call_to_one_that_does_not_answer_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        redis = connect(url, call_timeout_s=0.05)
        with pytest.raises(DependencyDown), store_errors("the log"):
            await redis.ping()
        await redis.aclose()


async def test_many_calls_at_once_are_all_answered(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        redis = connect(server.url)
        async with asyncio.TaskGroup() as calls:
            for number in range(200):
                calls.create_task(redis.set(f"key{number}", "x" * 10_000))
        assert await redis.dbsize() == 200
        await redis.aclose()


async def test_store_that_cannot_write_now_is_down(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        redis = connect(server.url)
        await redis.config_set("min-replicas-to-write", "1")

        async def in_a_pipeline() -> None:
            async with redis.pipeline(transaction=True) as pipe:
                pipe.rpush("turns", "a question")
                pipe.expire("turns", 5)
                await pipe.execute()

        writes = (
            lambda: redis.set("key", "value"),
            in_a_pipeline,
            lambda: redis.eval("return redis.call('SET', KEYS[1], 'x')", 1, "key"),
        )
        for write in writes:
            with pytest.raises(DependencyDown, match=r"NOREPLICAS") as caught, store_errors("it"):
                await write()
            assert "question" not in caught.value.message
        await redis.aclose()


async def test_whoever_watches_is_told_how_full_the_store_is(tmp_path: Path) -> None:
    shares: asyncio.Queue[float] = asyncio.Queue()
    with redis_server(tmp_path) as server:
        redis = connect(server.url)
        watching = asyncio.create_task(watch(redis, lambda _: None, shares.put_nowait))
        assert await shares.get() == 0
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", str(2 * used))
        while not 0.4 < await shares.get() < 0.6:
            pass
        watching.cancel()
        await redis.aclose()


def test_words_of_a_user_are_not_taken_for_an_outage() -> None:
    reply = (
        "Command # 1 (RPUSH turns OOM READONLY ) of pipeline caused error: WRONGTYPE it is a set"
    )
    with pytest.raises(ResponseError), store_errors("it"):
        raise ResponseError(reply)


def test_error_of_our_own_making_is_not_taken_for_an_outage() -> None:
    with pytest.raises(ResponseError), store_errors("the log"):
        raise ResponseError("wrong number of arguments")


def test_connect_refuses_what_is_no_redis_url() -> None:
    with pytest.raises(ValueError, match="scheme"):
        connect("http://127.0.0.1")


async def test_connection_that_was_idle_over_a_restart_is_not_used(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        redis = connect(server.url)
        await redis.ping()
        await asyncio.to_thread(server.restart)
        assert await redis.ping()
        await redis.aclose()


def test_fsync_policy_is_read_and_another_is_refused() -> None:
    assert Settings.from_env({"ORRERY_REDIS_FSYNC": "everysec"}).redis_fsync == "everysec"
    with pytest.raises(SettingsError, match="ORRERY_REDIS_FSYNC"):
        Settings.from_env({"ORRERY_REDIS_FSYNC": "sometimes"})
