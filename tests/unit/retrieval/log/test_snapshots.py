"""Snapshots: written whole or not at all, and whatever is damaged is found and named."""

from __future__ import annotations

import asyncio
import random
import resource
import shutil
from pathlib import Path

import pytest

from services.retrieval.log.position import Position
from services.retrieval.log.replica import Replica
from services.retrieval.log.snapshots import SnapshotStore
from services.retrieval.log.stream import LOG
from services.runtime import store
from services.runtime.errors import DependencyDown
from tests.fakes.replicas import config, document, replica, state_of


async def fill(one: Replica, count: int, seed: int = 0) -> None:
    """Random writes to two collections, made if they are missing."""
    order = random.Random(seed)
    names = [view.name for view in one.collections()]
    for name in ("docs", "other"):
        if name not in names:
            await one.create_collection(name, f"Title of {name}", config(), {"made": "here"})
    await one.sync(5)
    for number in range(count):
        id_ = one.collection(order.choice(["docs", "other"])).id
        if order.random() < 0.25:
            await one.remove(id_, [f"d{order.randrange(20)}"])
        else:
            put = document(f"d{order.randrange(20)}", seed * 1000 + number, order.randrange(3))
            await one.put(id_, put)
    await one.sync(5)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def length_of_log(url: str) -> int:
    redis = store.connect(url)
    try:
        return int(await redis.xlen(LOG))
    finally:
        await redis.aclose()


async def test_a_replica_starts_from_a_snapshot_and_the_log_behind_it(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one:
        await fill(one, 60, seed=1)
        info = await one.snapshot()
        assert info.position == one.applied == one.snapshot_position
        assert info.num_collections == 2
        assert info.num_documents == sum(v.generation.num_documents for v in one.collections())
        assert info.num_bytes > 0
        await fill(one, 30, seed=2)
        expected = state_of(one)
    async with replica(redis_url, tmp_path) as other:
        assert other.snapshot_position == info.position
        assert state_of(other) == expected
        # What was loaded is changed and merged like anything else.
        await fill(other, 30, seed=3)
        await other.rebuild("docs")
        expected = state_of(other)
    async with replica(redis_url, tmp_path / "no snapshots here") as replayed:
        assert state_of(replayed) == expected


async def test_the_log_is_trimmed_behind_the_older_of_two_snapshots_only(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one:
        await fill(one, 20, seed=1)
        first = await one.snapshot()
        length = await length_of_log(redis_url)
        assert length >= 20  # with one snapshot alone, nothing is dropped
        await fill(one, 20, seed=2)
        second = await one.snapshot()
        assert await length_of_log(redis_url) == 21  # the entry of the first snapshot, and since
        await fill(one, 5, seed=3)
        third = await one.snapshot()
        assert await length_of_log(redis_url) == 6
        assert SnapshotStore(tmp_path).positions() == [third.position, second.position]
        assert first.position < second.position < third.position == one.applied
        expected = state_of(one)
        assert (await one.snapshot()).position == third.position  # nothing new to write
    async with replica(redis_url, tmp_path) as other:
        assert state_of(other) == expected


async def test_a_snapshot_without_collections_is_one(redis_url: str, tmp_path: Path) -> None:
    async with replica(redis_url, tmp_path) as one:
        assert (await one.snapshot()).num_collections == 0
    async with replica(redis_url, tmp_path) as other:
        assert other.collections() == []


async def test_a_snapshot_damaged_anywhere_is_recovered_from(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut at random bytes, with flipped bits, with files missing: the one before it and the log."""
    whole = tmp_path / "whole"
    async with replica(redis_url, whole) as one:
        await fill(one, 30, seed=1)
        older = await one.snapshot()
        await fill(one, 30, seed=2)
        newest = await one.snapshot()
        await fill(one, 10, seed=3)
        expected = state_of(one)
    order = random.Random(7)
    files = sorted(path.name for path in (whole / str(newest.position)).iterdir())
    assert len(files) == 3
    for attempt in range(36):
        folder = tmp_path / f"damaged {attempt}"
        shutil.copytree(whole, folder)
        path = folder / str(newest.position) / files[attempt % 3]
        _damage(path, order, attempt // 3)
        caplog.clear()
        async with replica(redis_url, folder) as other:
            assert state_of(other) == expected
        messages = [r for r in caplog.records if r.getMessage() == "a snapshot cannot be used"]
        assert [record.__dict__["snapshot"] for record in messages] == [str(newest.position)]
        assert path.name in messages[0].__dict__["reason"]
        shutil.rmtree(folder)
    assert older.position < newest.position


def _damage(path: Path, order: random.Random, way: int) -> None:
    data = path.read_bytes()
    match way % 4:
        case 0 | 1:
            path.write_bytes(data[: order.randrange(len(data))])
        case 2:
            at, bit = order.randrange(len(data)), 1 << order.randrange(8)
            path.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
        case 3:
            if order.random() < 0.5:
                path.unlink()
            else:
                path.write_bytes(data + b"\0")


async def test_a_damaged_snapshot_is_replaced_by_the_next_and_the_log_kept_for_it(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one:
        await fill(one, 20, seed=1)
        first = await one.snapshot()
        await fill(one, 20, seed=2)
        second = await one.snapshot()
        manifest = tmp_path / str(second.position) / "manifest.json"
        manifest.write_bytes(manifest.read_bytes()[:-5])
        await fill(one, 20, seed=3)
        length = await length_of_log(redis_url)
        third = await one.snapshot()
        # The damaged one does not count: nothing behind the first may go.
        assert await length_of_log(redis_url) == length
        assert SnapshotStore(tmp_path).positions() == [
            third.position, second.position, first.position,
        ]  # fmt: skip
        await fill(one, 20, seed=4)
        fourth = await one.snapshot()
        assert SnapshotStore(tmp_path).positions() == [fourth.position, third.position]
        expected = state_of(one)
    async with replica(redis_url, tmp_path) as other:
        assert state_of(other) == expected


async def test_the_same_position_is_written_again_where_it_was_damaged(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one:
        await fill(one, 20)
        info = await one.snapshot()
        (tmp_path / str(info.position) / "manifest.json").unlink()
        assert await one.snapshot() == info
        (kept,) = SnapshotStore(tmp_path).kept(one._applier.log_id)
        assert kept == info


async def test_what_a_dead_writer_left_is_ignored_and_removed(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one:
        await fill(one, 20)
        await one.snapshot()
        expected = state_of(one)
        left = tmp_path / ".unfinished-123"
        left.mkdir()
        (left / "manifest.json").write_text("{}")
    async with replica(redis_url, tmp_path) as other:
        assert state_of(other) == expected
        await fill(other, 5, seed=5)
        await other.snapshot()
    assert not left.exists()


async def test_a_full_disk_is_reported_leaves_nothing_behind_and_stops_nothing(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one:
        await fill(one, 20)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # a file of more bytes fails
        try:
            with pytest.raises(DependencyDown, match="could not be written"):
                await one.snapshot()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert names_in(tmp_path) == []
        await fill(one, 20, seed=2)
        info = await one.snapshot()
        assert info.position == one.applied


async def test_two_replicas_write_snapshots_one_after_the_other(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one, replica(redis_url, tmp_path) as other:
        for seed in range(4):
            await fill(one, 10, seed=seed)
            infos = await asyncio.gather(one.snapshot(), other.snapshot(), one.snapshot())
            assert all(info.position <= one.applied for info in infos)
        await other.sync(5)
        assert state_of(one) == state_of(other)
        expected = state_of(one)
        assert len(SnapshotStore(tmp_path).kept(one._applier.log_id)) == 2
    assert [name for name in names_in(tmp_path) if name.startswith(".")] == []
    async with replica(redis_url, tmp_path) as third:
        assert state_of(third) == expected


async def test_two_writers_of_one_position_leave_one_whole_snapshot(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one:
        await fill(one, 20)
        frozen = await one._freeze()
        stores = [SnapshotStore(tmp_path) for _ in range(4)]
        infos = await asyncio.gather(
            *(asyncio.to_thread(each.write, one._applier.log_id, frozen) for each in stores)
        )
        assert len(set(infos)) == 1
        assert SnapshotStore(tmp_path).kept(one._applier.log_id) == [infos[0]]
        assert names_in(tmp_path) == [str(frozen.position)]


async def test_a_snapshot_is_of_one_moment_while_writes_go_on(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one:
        await fill(one, 30)
        writing = asyncio.create_task(fill(one, 200, seed=9))
        infos = [await one.snapshot() for _ in range(5)]
        await writing
        expected = state_of(one)
        assert infos[-1].position <= one.applied
    async with replica(redis_url, tmp_path) as other:
        assert state_of(other) == expected


def test_folders_that_are_no_snapshots_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes", "1-2", "01-2", "3-4.old", ".unfinished-x"):
        (tmp_path / name).mkdir()
    (tmp_path / "5-6").write_text("a file")
    assert SnapshotStore(tmp_path).positions() == [Position(1, 2)]
    assert SnapshotStore(tmp_path / "missing").positions() == []


def test_fewer_than_two_snapshots_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep"):
        SnapshotStore(tmp_path, keep=1)
