"""The store is away, slow, restored from older data, wiped, or another one."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis._parsers.base import BaseParser

from services.retrieval.log import applier
from services.retrieval.log.appender import AppenderLimits
from services.retrieval.log.entries import CollectionDeleted, encode
from services.retrieval.log.replica import Replica, ReplicaOptions
from services.retrieval.log.snapshots import SnapshotStore
from services.retrieval.log.snapshotter import SnapshotPolicy
from services.retrieval.log.stream import LOG, META, Append, LogStream
from services.runtime import store
from services.runtime.errors import (
    DeadlineExceeded,
    DependencyDown,
    NotReady,
    OrreryError,
    Overloaded,
)
from tests.fakes.redis_server import RedisServer, redis_server
from tests.fakes.replicas import config, contents, document, replica, state_of

LIMIT_S = 15.0


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def with_documents(one: Replica, count: int) -> str:
    """Makes a collection with some documents; returns its id."""
    await one.create_collection("docs", "", config(), {})
    await one.sync(5)
    id_ = one.collection("docs").id
    for number in range(count):
        await one.put(id_, document(f"d{number}", number))
    await one.sync(5)
    return id_


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks again sooner whether trouble has passed."""
    monkeypatch.setattr(applier, "TROUBLE_RETRY_S", 0.05)


async def test_reads_go_on_and_writes_are_refused_while_the_store_is_away(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with replica(own_redis.url, tmp_path / "snapshots") as one:
        id_ = await with_documents(one, 5)
        held = state_of(one)
        token = one.applied
        own_redis.kill()
        await until(lambda: not one.log_available)
        for refused in (
            one.put(id_, document("new", 1)),
            one.remove(id_, ["d1"]),
            one.create_collection("more", "", config(), {}),
            one.sync(5),
            one.snapshot(),
        ):
            with pytest.raises(DependencyDown):
                await refused
        await one.wait_for(str(token), 0)
        with pytest.raises(DependencyDown):
            await one.wait_for(f"{token.ms}-{token.sequence + 1}", 0.1)
        assert state_of(one) == held
        assert one.failure is None
        own_redis.start()
        await until(lambda: one.log_available)
        await one.wait_for(str(await one.put(id_, document("new", 1))), 5)
        assert "new" in contents(one.collection("docs"))


async def test_many_writers_are_all_answered_when_the_store_dies_under_them(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with replica(own_redis.url, tmp_path / "snapshots") as one:
        id_ = await with_documents(one, 1)
        writes = [
            asyncio.create_task(one.put(id_, document(f"w{number}", number)))
            for number in range(2000)
        ]
        await asyncio.sleep(0.02)
        own_redis.kill()
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert all(not isinstance(o, BaseException) or type(o) is DependencyDown for o in outcomes)
        own_redis.start()
        await until(lambda: one.log_available)
        await one.sync(5)
        held = contents(one.collection("docs"))
        for number, outcome in enumerate(outcomes):
            if not isinstance(outcome, BaseException):
                assert f"w{number}" in held


async def test_more_waiting_writes_than_allowed_are_refused_as_overload(
    redis_url: str, tmp_path: Path
) -> None:
    options = ReplicaOptions(appends=AppenderLimits(max_batch_entries=1, max_waiting_entries=3))
    async with replica(redis_url, tmp_path, options) as one:
        id_ = await with_documents(one, 1)
        writes = (one.put(id_, document(f"w{number}", number)) for number in range(10))
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert {type(o) for o in outcomes if isinstance(o, BaseException)} == {Overloaded}
        await one.sync(5)
        held = contents(one.collection("docs"))
        done = [o for o in outcomes if not isinstance(o, BaseException)]
        assert len(held) == 1 + len(done)


async def test_a_cancelled_write_that_has_not_left_is_not_written(
    redis_url: str, tmp_path: Path
) -> None:
    options = ReplicaOptions(appends=AppenderLimits(max_batch_entries=1))
    async with replica(redis_url, tmp_path, options) as one:
        id_ = await with_documents(one, 0)
        first = asyncio.create_task(one.put(id_, document("first", 1)))
        second = asyncio.create_task(one.put(id_, document("second", 2)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
        await first
        await one.sync(5)
        assert list(contents(one.collection("docs"))) == ["first"]


async def test_a_write_that_the_store_gets_to_too_late_never_happens(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """Otherwise it could undo what its caller did after having been told that it failed."""
    redis, slow = store.connect(own_redis.url), store.connect(own_redis.url, call_timeout_s=0.3)
    try:
        stream = LogStream(slow, append_timeout_s=0.3)
        head = await stream.open("the log")
        assert head.log_id == "the log"
        made = Append("docs", "1" * 32, encode(CollectionDeleted()))
        await stream.append("the log", head.tail, [made])  # learns the store's clock
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            with pytest.raises(DependencyDown):
                await stream.append("the log", head.tail, [_create("late")])
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        await redis.ping()
        assert await redis.hkeys("orrery:retrieval:collections") == []
        assert await redis.xlen(LOG) == 0
        (position,) = await stream.append("the log", head.tail, [_create("in time")])
        assert not isinstance(position, OrreryError)
    finally:
        await redis.aclose()
        await slow.aclose()


def _create(name: str) -> Append:
    from services.retrieval.log.entries import CollectionCreated

    return Append(name, "2" * 32, encode(CollectionCreated(name, "", config(), {})))


async def test_a_store_that_is_full_refuses_writes_and_takes_them_again(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    admin = store.connect(own_redis.url)
    try:
        async with replica(own_redis.url, tmp_path / "snapshots") as one:
            id_ = await with_documents(one, 3)
            await admin.config_set("maxmemory", "1mb")
            big = document("big", 1, num_chunks=50)

            async def fill() -> None:
                nonlocal acknowledged
                while True:
                    acknowledged = await one.put(id_, big)

            acknowledged = one.tail
            with pytest.raises(DependencyDown, match="OOM"):
                await fill()
            # A script that is refused has done nothing.
            ((last, _),) = await admin.xrevrange(LOG, count=1)
            tail = await admin.hget(META, "tail")
            assert last == tail == str(acknowledged).encode()
            await admin.config_set("maxmemory", "0")
            await one.put(id_, document("after", 1))
            await one.sync(5)
            assert {"d0", "d1", "d2", "after"} <= contents(one.collection("docs")).keys()
    finally:
        await admin.aclose()


@pytest.mark.parametrize(
    "reply",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",  # Redis 7 and later
        "READONLY You can't write against a read only replica.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "ERR Error running script (call to f_1): @user_script:20: -OOM command not allowed",
    ],
)
async def test_store_that_cannot_write_says_so_whatever_its_version(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    redis = store.connect(own_redis.url)
    try:
        stream = LogStream(redis)
        head = await stream.open("the log")
        error = BaseParser.parse_error(reply)

        async def refused(*_: object) -> list[object]:
            return [error]

        monkeypatch.setattr(stream, "_append", refused)
        [outcome] = await stream.append("the log", head.tail, [_create("docs")])
        assert isinstance(outcome, DependencyDown)
    finally:
        await redis.aclose()


async def test_starting_waits_for_the_store_and_gives_up_by_name(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    own_redis.kill()
    with pytest.raises(DependencyDown):
        async with replica(own_redis.url, tmp_path, ReplicaOptions(start_limit_s=0.3)):
            pytest.fail("started without a store")

    async def start_later() -> None:
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_redis.start)

    starting = asyncio.create_task(start_later())
    async with replica(own_redis.url, tmp_path) as one:
        assert one.log_available
    await starting


@pytest.mark.usefixtures("impatient")
async def test_a_store_restored_from_older_data_is_noticed_and_named(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    folder = tmp_path / "snapshots"
    async with replica(own_redis.url, folder) as one:
        id_ = await with_documents(one, 5)
        _copy_aof(own_redis, tmp_path / "older")
        for number in range(5, 10):
            await one.put(id_, document(f"d{number}", number))
        await one.sync(5)
        _copy_aof(own_redis, tmp_path / "newer")
        held = state_of(one)
        _restore(own_redis, tmp_path / "older")
        await until(lambda: one.trouble is not None)
        assert "lost writes" in str(one.trouble)
        assert not one.log_available
        with pytest.raises(NotReady, match="lost writes"):
            await one.put(id_, document("new", 1))
        with pytest.raises(NotReady, match="lost writes"):
            await one.sync(5)
        with pytest.raises(NotReady, match="lost writes"):
            await one.snapshot()
        assert state_of(one) == held  # reads go on
        # Not even a snapshot that was begun before may trim what the store now holds.
        length = await _length(own_redis)
        for _ in range(2):
            await one._snapshotter.snapshot()
        assert not await one._stream.note_snapshots(one._applier.log_id, one.applied, one.applied)
        assert await _length(own_redis) == length
        # Another replica, which knows the older data alone, goes on from there. Even when the log
        # has grown past what this one knew, it is not taken for the same history.
        async with replica(own_redis.url, tmp_path / "other snapshots") as other:
            for number in range(20):
                await other.put(id_, document(f"other {number}", number))
            await other.sync(5)
            await until(lambda: "older state" in str(one.trouble))
            assert state_of(one) == held
            with pytest.raises(NotReady):
                await one.put(id_, document("new", 1))
        # The right data again: it recovers by itself.
        _restore(own_redis, tmp_path / "newer")
        await until(lambda: one.log_available)
        assert one.trouble is None
        await one.put(id_, document("new", 1))
        await one.sync(5)
        assert "new" in contents(one.collection("docs"))


@pytest.mark.usefixtures("impatient")
async def test_a_write_cannot_slip_into_a_log_that_went_back(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """The store itself checks with each append, before the replica has noticed anything."""
    redis = store.connect(own_redis.url)
    try:
        async with replica(own_redis.url, tmp_path / "snapshots") as one:
            id_ = await with_documents(one, 3)
            await redis.hset(META, "tail", "1-1")
            outcomes = await asyncio.gather(
                *(one.put(id_, document("new", n)) for n in range(3)), return_exceptions=True
            )
            assert {type(outcome) for outcome in outcomes} == {NotReady}
            await redis.hset(META, "log_id", "another")
            with pytest.raises(NotReady):
                await one.put(id_, document("new", 1))
            assert await redis.xlen(LOG) == 4
    finally:
        await redis.aclose()


@pytest.mark.usefixtures("impatient")
async def test_a_wiped_store_is_noticed_and_a_start_on_it_refused_while_there_are_snapshots(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    folder = tmp_path / "snapshots"
    async with replica(own_redis.url, folder) as one:
        id_ = await with_documents(one, 5)
        info = await one.snapshot()
        held = state_of(one)
        own_redis.flush()
        await until(lambda: one.trouble is not None)
        assert "wiped" in str(one.trouble)
        with pytest.raises(NotReady, match="wiped"):
            await one.put(id_, document("new", 1))
        assert state_of(one) == held
    with pytest.raises(NotReady, match=str(info.position)):
        async with replica(own_redis.url, folder):
            pytest.fail("began anew in silence")
    shutil.rmtree(folder)
    async with replica(own_redis.url, folder) as fresh:
        assert fresh.collections() == []


@pytest.mark.usefixtures("impatient")
async def test_a_snapshot_of_another_log_is_refused_by_name(
    own_redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "snapshots"
    async with replica(own_redis.url, folder) as one:
        await with_documents(one, 5)
        info = await one.snapshot()
        own_redis.flush()
        async with replica(own_redis.url, tmp_path / "elsewhere") as other:
            await with_documents(other, 2)
            expected = state_of(other)
            await until(lambda: "another log" in str(one.trouble))
            async with replica(own_redis.url, folder) as third:
                assert state_of(third) == expected
    assert str(info.position) in [record.__dict__.get("snapshot") for record in caplog.records]


@pytest.mark.usefixtures("impatient")
async def test_a_replica_whose_entries_were_trimmed_away_goes_on_from_a_snapshot(
    redis_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "snapshots"
    async with replica(redis_url, folder) as one, replica(redis_url, folder) as slow:
        id_ = await with_documents(one, 5)
        await slow.sync(5)
        await _pause(slow)
        for round_ in range(3):
            for number in range(10):
                await one.put(id_, document(f"r{round_}-{number}", number))
            await one.sync(5)
            await one.snapshot()
        await one.put(id_, document("last", 1))
        await one.sync(5)
        slow._applier.follow(slow._on_applied)
        await slow.sync(5)
        assert state_of(slow) == state_of(one)
        # One with a folder of its own has no snapshot to go on from: it says so.
        with pytest.raises(NotReady, match="no snapshot here"):
            async with replica(redis_url, tmp_path / "own folder"):
                pytest.fail("started with a part of the log")


async def _pause(one: Replica) -> None:
    """Stops following, as on a machine that sleeps."""
    task = one._applier._task
    assert task is not None
    one._applier._closing = True
    await task
    one._applier._closing = False


async def test_snapshots_are_written_when_enough_log_has_come_together(
    redis_url: str, tmp_path: Path
) -> None:
    options = ReplicaOptions(snapshots=SnapshotPolicy(max_entries=25, fraction=0, retry_s=0))
    async with replica(redis_url, tmp_path, options) as one:
        await with_documents(one, 60)
        await until(lambda: len(SnapshotStore(tmp_path).positions()) >= 1)
        id_ = one.collection("docs").id
        for number in range(60):
            await one.put(id_, document(f"e{number}", number))
        await until(lambda: len(SnapshotStore(tmp_path).positions()) == 2)
    async with replica(redis_url, tmp_path) as other:
        assert other.collection("docs").generation.num_documents == 120


async def test_large_documents_are_read_a_few_at_a_time(redis_url: str, tmp_path: Path) -> None:
    async with replica(redis_url, tmp_path) as one:
        id_ = await with_documents(one, 0)
        for number in range(6):
            big = document(f"big {number}", number, num_chunks=2000, dimensions=4)
            await one.put(id_, big)
        redis = store.connect(redis_url)
        try:
            stream = LogStream(redis)
            start = one.applied
            page = await stream.read(type(start)(0, 0), 1000, 100_000)
            assert 1 <= len(page.entries) <= 3  # the collection, and one that is over the bound
            everything = await stream.read(type(start)(0, 0), 1000, 1 << 30)
            assert len(everything.entries) == 7
        finally:
            await redis.aclose()
        await one.sync(10)
        assert one.collection("docs").generation.num_chunks == 12_000


async def test_waiting_ends_with_its_deadline_while_the_store_hangs(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with replica(own_redis.url, tmp_path / "snapshots") as one:
        id_ = await with_documents(one, 1)
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded):
                await one.sync(0.2)
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        await one.put(id_, document("after", 1))
        await one.sync(5)
        assert "after" in contents(one.collection("docs"))


async def test_closing_answers_everybody(own_redis: RedisServer, tmp_path: Path) -> None:
    async with replica(own_redis.url, tmp_path / "snapshots") as one:
        id_ = await with_documents(one, 1)
        beyond = type(one.applied)(one.applied.ms, one.applied.sequence + 1)
        waiting = asyncio.create_task(one._applier.wait_until(beyond))
        await asyncio.sleep(0.05)
    with pytest.raises(NotReady):
        await waiting
    with pytest.raises(NotReady):
        await one.put(id_, document("late", 1))


async def _length(server: RedisServer) -> int:
    redis = store.connect(server.url)
    try:
        assert await redis.hget(META, "snapshot") is None
        return int(await redis.xlen(LOG))
    finally:
        await redis.aclose()


def _copy_aof(server: RedisServer, to: Path) -> None:
    shutil.copy(server.folder / "appendonly.aof", to)


def _restore(server: RedisServer, older: Path) -> None:
    server.kill()
    shutil.copy(older, server.folder / "appendonly.aof")
    server.start()


def test_a_fake_store_keeps_its_data_over_a_kill(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        from redis import Redis

        with Redis.from_url(server.url) as redis:
            redis.set("key", "value")
        server.restart()
        with Redis.from_url(server.url) as redis:
            assert redis.get("key") == b"value"
