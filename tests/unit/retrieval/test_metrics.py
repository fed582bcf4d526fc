"""What a replica tells of its index, its log and its searches, as metrics."""

from __future__ import annotations

from orrery.v1 import retrieval_pb2 as pb
from tests.contract.retrieval_served import text
from tests.fakes.redis_server import RedisServer
from tests.unit.retrieval.conftest import Site, until

LABELS = {"service": "retrieval", "model": ""}


def sample(site: Site, name: str, **labels: str) -> float | None:
    return site.server.registry.collector.get_sample_value(f"orrery_{name}", {**LABELS, **labels})


async def test_index_tells_what_it_holds_and_that_it_has_changed(alone: Site) -> None:
    assert sample(alone, "retrieval_documents_total", status="failed") == 0
    name = await alone.client.collection()
    await alone.client.put(name, [text("a", "some words")])
    before = sample(alone, "retrieval_index_generation")
    token = await alone.client.put(name, [text("b", "other words"), text("c", "more words")])
    await alone.client.search(name, token, text="words")
    after = sample(alone, "retrieval_index_generation")
    assert before is not None
    assert after is not None
    assert after > before
    assert sample(alone, "retrieval_index_collections") == 1
    assert sample(alone, "retrieval_index_documents") == 3
    assert sample(alone, "retrieval_index_chunks") == 3
    segments = sample(alone, "retrieval_index_segments")
    assert segments is not None
    assert 1 <= segments <= 3
    assert sample(alone, "retrieval_applied_lag_seconds") == 0


async def test_stages_of_one_search_and_of_a_batch_are_timed(alone: Site) -> None:
    name = await alone.client.collection()
    token = await alone.client.put(name, [text("a", "some words")])
    await alone.client.search(name, token, text="some")
    assert sample(alone, "retrieval_stage_seconds_count", stage="embed") == 1
    await alone.client.stub.SearchBatch(
        pb.SearchBatchRequest(
            collection=name, queries=[pb.SearchQuery(text="some"), pb.SearchQuery(text="words")]
        )
    )
    assert sample(alone, "retrieval_stage_seconds_count", stage="embed") == 2
    assert sample(alone, "retrieval_searches_waiting") == 0
    assert sample(alone, "queue_usage_perc", queue="searches") == 0


async def test_redis_that_is_away_is_told_and_that_it_is_back(
    alone: Site, redis: RedisServer
) -> None:
    await until(lambda: sample(alone, "redis_available") == 1)
    redis.kill()
    await until(lambda: sample(alone, "redis_available") == 0)
    assert sample(alone, "retrieval_log_available") == 0
    redis.restart()
    await until(lambda: sample(alone, "redis_available") == 1)
