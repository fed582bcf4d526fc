"""The other services over gRPC: real retrieval, and generation over the toy."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from orrery.v1 import generation_pb2, retrieval_pb2
from orrery.v1.retrieval_pb2_grpc import RetrievalServiceStub
from services.rag.peers import PeerServices
from services.rag.services import Embedder, Sampling, Search, SearchQuery, TextPurpose
from services.rag.types import Message, SearchMode
from services.runtime.errors import (
    CollectionNotFound,
    DeadlineExceeded,
    DependencyDown,
    InvalidRequest,
)
from services.runtime.peer import Caller, Peer
from tests.fakes.generation_server import generation_server
from tests.fakes.hash_embedding import DIMENSIONS, MAX_INPUT_TOKENS, HashEmbeddingServicer
from tests.fakes.redis_server import redis_server
from tests.fakes.retrieval_server import retrieval_server
from tests.fakes.toy_backend import ToyBackend, ToySettings

EMBEDDER = Embedder("embedding", DIMENSIONS)


def caller(timeout_s: float = 20.0) -> Caller:
    return Caller("id-1", None, time.monotonic() + timeout_s)


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[str]:
    """A collection of two documents, one without an embedding model, one of short vectors."""
    with redis_server(tmp_path / "redis") as redis:
        async with (
            retrieval_server(
                redis.url,
                tmp_path / "data",
                embedding=HashEmbeddingServicer(embeds_pictures=True),
            ) as server,
            grpc.aio.insecure_channel(server.target) as channel,
        ):
            stub = RetrievalServiceStub(channel)
            await stub.CreateCollection(retrieval_pb2.CreateCollectionRequest(name="docs"))
            config = retrieval_pb2.CollectionConfig(embedding_application="none", dimensions=2)
            await stub.CreateCollection(
                retrieval_pb2.CreateCollectionRequest(name="bare", config=config)
            )
            config = retrieval_pb2.CollectionConfig(dimensions=5)
            await stub.CreateCollection(
                retrieval_pb2.CreateCollectionRequest(name="cut", config=config)
            )
            requests = [
                retrieval_pb2.UpsertRequest(
                    collection="docs",
                    document=retrieval_pb2.Document(
                        id=name, file=retrieval_pb2.FileContent(data=text.encode(), name=name)
                    ),
                )
                for name, text in (("a.txt", "the lamp is red"), ("b.txt", "a ship of oak"))
            ]
            written = [answer async for answer in stub.Upsert(iter(requests))]
            await stub.GetCollection(  # so that every search sees them
                retrieval_pb2.GetCollectionRequest(
                    name="docs", consistency_token=written[-1].consistency_token
                )
            )
            yield server.target


@pytest.fixture
async def finding(target: str) -> AsyncIterator[PeerServices]:
    peer = Peer(target)
    yield PeerServices(peer, retrieval="retrieval")
    await peer.close()


@pytest.fixture
async def retrieval(target: str) -> AsyncIterator[RetrievalServiceStub]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield RetrievalServiceStub(channel)


async def test_search_finds_passages_for_one_query_and_for_several(finding: PeerServices) -> None:
    query = SearchQuery("red lamp")
    one = await finding.search(Search("docs", (query,), k=2, explain=True), caller())
    (ranking,) = one.rankings
    assert ranking[0].document_id == "a.txt"
    assert ranking[0].text == "the lamp is red"
    assert (ranking[0].start, ranking[0].line_start) == (0, 1)
    assert ranking[0].file_name == "a.txt"
    assert one.timeline
    assert one.index_generation > 0

    embedded = await finding.embed(EMBEDDER, ["oak ship"], TextPurpose.QUERY, caller())
    by_vector = SearchQuery("oak ship", embedded.vectors[0])
    several = await finding.search(Search("docs", (query, by_vector), k=1), caller())
    assert [ranking[0].document_id for ranking in several.rankings] == ["a.txt", "b.txt"]


async def test_pictures_are_no_passages(
    finding: PeerServices, retrieval: RetrievalServiceStub
) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    document = retrieval_pb2.Document(
        id="c.png",
        title="a red lamp",
        file=retrieval_pb2.FileContent(data=picture.getvalue(), name="c.png"),
    )
    requests = [retrieval_pb2.UpsertRequest(collection="docs", document=document)]
    (written,) = [answer async for answer in retrieval.Upsert(iter(requests))]
    query = retrieval_pb2.SearchRequest(
        collection="docs",
        query=retrieval_pb2.SearchQuery(text="red lamp"),
        consistency_token=written.consistency_token,
    )
    hits = (await retrieval.Search(query)).hits
    assert "c.png" in {hit.chunk.document_id for hit in hits}
    found = await finding.search(Search("docs", (SearchQuery("red lamp"),), k=10), caller())
    assert {passage.document_id for passage in found.rankings[0]} == {"a.txt", "b.txt"}


async def test_search_keeps_the_callers_own_options(finding: PeerServices) -> None:
    rest = retrieval_pb2.SearchOptions()
    rest.filter.comparison.field = "document_id"
    rest.filter.comparison.operator = retrieval_pb2.FILTER_OPERATOR_EQ
    rest.filter.comparison.values.add().string_value = "b.txt"
    search = Search("docs", (SearchQuery("red lamp"),), k=2, rest=rest)
    found = await finding.search(search, caller())
    assert {passage.document_id for passage in found.rankings[0]} == {"b.txt"}
    nothing = Search("docs", (SearchQuery("red lamp"),), k=2, min_score=2.0)
    assert (await finding.search(nothing, caller())).rankings == ((),)


async def test_errors_come_as_they_were_meant(finding: PeerServices) -> None:
    with pytest.raises(CollectionNotFound):
        await finding.embedder("none-such", "", caller())
    wrong = SearchQuery("lamp", (1.0, 2.0, 3.0))
    for queries in ((wrong,), (wrong, wrong)):
        with pytest.raises(InvalidRequest):
            await finding.search(Search("docs", queries, k=1, mode=SearchMode.DENSE), caller())


async def test_queries_are_embedded_as_the_collection_is(finding: PeerServices) -> None:
    assert await finding.embedder("docs", "", caller()) == EMBEDDER
    assert await finding.embedder("bare", "", caller()) is None
    cut = await finding.embedder("cut", "", caller())
    assert cut == Embedder("embedding", 5)
    embedded = await finding.embed(cut, ["a lamp"], TextPurpose.QUERY, caller())
    query = SearchQuery("a lamp", embedded.vectors[0])
    found = await finding.search(Search("cut", (query,), k=1, mode=SearchMode.DENSE), caller())
    assert found.rankings == ((),)
    long = "word " * (MAX_INPUT_TOKENS + 1)
    embedded = await finding.embed(EMBEDDER, [long, "short"], TextPurpose.PASSAGE, caller())
    assert [len(vector) for vector in embedded.vectors] == [DIMENSIONS] * 2
    assert embedded.num_truncated == 1


async def test_completions_come_as_pieces_with_what_they_cost() -> None:
    async with generation_server() as server:
        peer = Peer(server.target)
        writing = PeerServices(peer, retrieval="retrieval")
        prompt = await writing.tokenize("toy", [Message("user", "hello")], caller())
        assert prompt.max_model_len == 512
        sampling = Sampling(max_tokens=6, temperature=0.5, seed=1, num_samples=2)
        pieces = [
            piece async for piece in writing.generate("toy", prompt.token_ids, sampling, caller())
        ]
        assert {piece.index for piece in pieces} == {0, 1}
        assert pieces[-1].usage.prompt_tokens == len(prompt.token_ids)
        assert pieces[-1].usage.completion_tokens == 12
        assert pieces[-1].model == "toy"
        assert [piece.index for piece in pieces if piece.truncated] in ([0, 1], [1, 0])
        await peer.close()


async def test_completion_without_an_end_is_not_taken_for_whole() -> None:
    class Stopping:
        async def server_stream(self, *_: Any) -> AsyncIterator[generation_pb2.GenerateResponse]:
            yield generation_pb2.GenerateResponse(choices=[{"index": 0, "text": "The captain"}])

    writing = PeerServices(Stopping(), retrieval="retrieval")  # type: ignore[arg-type]
    with pytest.raises(DependencyDown, match="'toy' stopped"):
        _ = [_ async for _ in writing.generate("toy", (1, 2), Sampling(max_tokens=4), caller())]


async def test_completion_that_is_left_or_out_of_time_ends_in_the_service() -> None:
    backend = ToyBackend(ToySettings(step_s=0.02))
    async with generation_server(backend) as server:
        peer = Peer(server.target)
        writing = PeerServices(peer, retrieval="retrieval")
        prompt = await writing.tokenize("toy", [Message("user", "hello")], caller())
        sampling = Sampling(max_tokens=400)
        left = writing.generate("toy", prompt.token_ids, sampling, caller())
        async with aclosing(left):
            await anext(left)
        with pytest.raises(DeadlineExceeded):
            _ = [_ async for _ in writing.generate("toy", (1, 2), sampling, caller(0.2))]
        end = time.monotonic() + 5
        while backend.load().num_running and time.monotonic() < end:
            await writing.tokenize("toy", [Message("user", "x")], caller())
        assert not backend.load().num_running
        await peer.close()
