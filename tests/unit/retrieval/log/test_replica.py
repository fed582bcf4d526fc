"""One replica, and two on the same log: what is written is read, everywhere, in order."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

import pytest

from services.retrieval.log.position import Position
from services.retrieval.types import Query, SearchMode, SearchOptions
from services.runtime.errors import (
    AlreadyExists,
    CollectionNotFound,
    DeadlineExceeded,
    InvalidRequest,
)
from tests.fakes.replicas import config, contents, document, replica, state_of


async def test_written_documents_are_read_after_their_token(redis_url: str, tmp_path: Path) -> None:
    async with replica(redis_url, tmp_path) as one:
        token = await one.create_collection("docs", "Docs", config(), {"owner": "me"})
        await one.wait_for(str(token), 5)
        view = one.collection("docs")
        assert (view.title, view.config, view.metadata) == ("Docs", config(), {"owner": "me"})
        await one.put(view.id, document("a", 1, num_chunks=3))
        await one.put(view.id, document("b", 2))
        token = await one.put(view.id, document("a", 3))
        await one.wait_for(str(token), 5)
        held = contents(one.collection("docs"))
        assert [held[id_][0] for id_ in held] == [document("a", 3).info, document("b", 2).info]
        assert held["a"][1] == document("a", 3).chunks
        assert held["a"][3] == document("a", 3).vectors.tobytes()
        assert one.collection("docs").last_write_at_ms == token.ms
        token = await one.remove(view.id, ["a", "missing"])
        await one.wait_for(str(token), 5)
        assert list(contents(one.collection("docs"))) == ["b"]
        assert one.applied == one.tail == token


async def test_collections_are_created_updated_and_deleted(redis_url: str, tmp_path: Path) -> None:
    async with replica(redis_url, tmp_path) as one:
        for name in ("b", "a"):
            await one.create_collection(name, name, config(), {})
        await one.sync(5)
        assert [view.name for view in one.collections()] == ["a", "b"]
        with pytest.raises(AlreadyExists) as refused:
            await one.create_collection("a", "again", config(), {})
        assert refused.value.field == "name"
        await one.update_collection("a", title="new")
        await one.update_collection("a", metadata={"x": "y"})
        await one.delete_collection("b")
        await one.sync(5)
        assert (one.collection("a").title, one.collection("a").metadata) == ("new", {"x": "y"})
        for call in (one.delete_collection("b"), one.update_collection("b", title="x")):
            with pytest.raises(CollectionNotFound) as missing:
                await call
            assert missing.value.field == "collection"
        with pytest.raises(CollectionNotFound):
            one.collection("b")


async def test_a_write_to_a_collection_made_anew_under_its_name_is_refused(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one, replica(redis_url, tmp_path) as other:
        await one.create_collection("docs", "", config(), {})
        await one.sync(5)
        old = one.collection("docs").id
        # Written before the other replica's deletion reaches this one, and refused all the same.
        await other.delete_collection("docs")
        await other.create_collection("docs", "", config(), {})
        with pytest.raises(CollectionNotFound):
            await one.put(old, document("a", 1))
        await one.sync(5)
        assert one.collection("docs").id != old
        assert contents(one.collection("docs")) == {}


async def test_nothing_acknowledged_is_lost_when_a_collection_is_deleted_under_writers(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one:
        outcomes = []
        for _ in range(5):
            await one.create_collection("docs", "", config(), {})
            await one.sync(5)
            id_ = one.collection("docs").id
            writes = [one.put(id_, document(str(n), n)) for n in range(20)]
            results = await asyncio.gather(
                *writes[:10], one.delete_collection("docs"), *writes[10:], return_exceptions=True
            )
            deleted = results.pop(10)
            assert isinstance(deleted, Position)
            for result in results:
                if isinstance(result, Position):
                    assert result < deleted
                else:
                    assert isinstance(result, CollectionNotFound)
            outcomes += results
        await one.sync(5)
        assert one.collections() == []
        assert any(isinstance(outcome, CollectionNotFound) for outcome in outcomes)


async def test_vectors_of_another_dimension_are_refused_by_name(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one:
        await one.create_collection("docs", "", config(), {})
        await one.sync(5)
        with pytest.raises(InvalidRequest) as refused:
            await one.put(one.collection("docs").id, document("a", 1, dimensions=5))
        assert refused.value.field == "vector"


@pytest.mark.parametrize(
    "token", ["x", "1", "1-", "-1-1", "1-1-1", "1_0-1", "99999999999999999999-0"]
)
async def test_a_token_that_is_none_is_refused_by_name(
    redis_url: str, tmp_path: Path, token: str
) -> None:
    async with replica(redis_url, tmp_path) as one:
        with pytest.raises(InvalidRequest) as refused:
            await one.wait_for(token, 5)
        assert refused.value.field == "consistency_token"


async def test_a_token_beyond_the_end_of_the_log_is_refused_rather_than_waited_for(
    redis_url: str, tmp_path: Path
) -> None:
    async with replica(redis_url, tmp_path) as one:
        with pytest.raises(InvalidRequest, match="end of the log"):
            await one.wait_for("99999999999999-0", None)


async def test_waiting_for_a_token_ends_with_the_deadline(redis_url: str, tmp_path: Path) -> None:
    async with replica(redis_url, tmp_path) as one, replica(redis_url, tmp_path) as other:
        reads_on = threading.Event()
        held_up = asyncio.create_task(one._applier.in_writer(reads_on.wait))
        token = await other.create_collection("docs", "", config(), {})
        for deadline_s in (0, 0.05):
            with pytest.raises(DeadlineExceeded):
                await one.wait_for(str(token), deadline_s)
        reads_on.set()
        await held_up
        await one.wait_for(str(token), 5)
        await one.wait_for(None, 0)
        await one.wait_for("", 0)


async def test_two_replicas_read_each_others_writes_by_token_in_any_interleaving(
    redis_url: str, tmp_path: Path
) -> None:
    """1,000 random writes and reads by token over two replicas; identical when all is quiet."""
    async with replica(redis_url, tmp_path) as one, replica(redis_url, tmp_path) as other:
        both = (one, other)
        token = await one.create_collection("docs", "", config(), {})
        for each in both:
            await each.wait_for(str(token), 5)
        id_ = one.collection("docs").id
        newest: dict[str, int | None] = {}
        keys = [f"doc {n}" for n in range(10)]

        async def client(seed: int) -> None:
            """Writes its own documents anywhere, then reads them anywhere."""
            mine = random.Random(seed)
            own = [key for n, key in enumerate(keys) if n % 5 == seed]
            for step in range(200):
                key, writer, reader = mine.choice(own), mine.choice(both), mine.choice(both)
                if mine.random() < 0.3:
                    token = await writer.remove(id_, [key])
                    newest[key] = None
                else:
                    value = seed * 1000 + step
                    token = await writer.put(id_, document(key, value))
                    newest[key] = value
                await reader.wait_for(str(token), 10)
                found = reader.collection("docs").generation.content_hash(key)
                expected = None if newest[key] is None else f"{key}:{newest[key]}"
                assert found == expected
                if mine.random() < 0.1:
                    await asyncio.sleep(mine.random() / 200)

        await asyncio.gather(*(client(seed) for seed in range(5)))
        for each in both:
            await each.sync(5)
        assert state_of(one) == state_of(other)
        left = {key: f"{key}:{value}" for key, value in newest.items() if value is not None}
        generation = one.collection("docs").generation
        assert {
            key: generation.content_hash(key) for key in generation.document_ids(limit=99)
        } == left
        _assert_same_results(one.collection("docs").generation, other.collection("docs").generation)
    async with replica(redis_url, tmp_path) as fresh:
        assert state_of(fresh) == state_of(one)


def _assert_same_results(one: object, other: object) -> None:
    vector = document("query", 7).vectors[0]
    for mode in SearchMode:
        options = SearchOptions(mode=mode, k=10)
        query = [Query(text="text of doc", vector=vector)]
        results = [
            [
                (hit.document.id, hit.ordinal, hit.score)
                for hit in found.candidates(query, options)[0]
            ]
            for found in (one, other)
        ]
        assert results[0] == results[1]
        assert results[0]


async def test_a_rebuild_changes_nothing_that_is_read(redis_url: str, tmp_path: Path) -> None:
    async with replica(redis_url, tmp_path) as one:
        await one.create_collection("docs", "", config(), {})
        await one.sync(5)
        id_ = one.collection("docs").id
        for n in range(30):
            await one.put(id_, document(f"{n % 20}", n))
        await one.remove(id_, ["3", "4"])
        await one.sync(5)
        before = state_of(one)
        await one.rebuild("docs")
        assert state_of(one) == before
        assert one.collection("docs").generation.num_segments == 1
        with pytest.raises(CollectionNotFound):
            await one.rebuild("missing")
