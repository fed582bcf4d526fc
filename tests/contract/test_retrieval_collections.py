"""Collections: made, found, listed, changed, removed; what they may be made with."""

from __future__ import annotations

import grpc
import pytest

from orrery.v1 import retrieval_pb2 as pb
from tests.contract.retrieval_served import ServedRetrieval, text
from tests.contract.served import refusal

INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def get(retrieval: ServedRetrieval, name: str, token: str = "") -> pb.Collection:
    request = pb.GetCollectionRequest(name=name, consistency_token=token)
    return (await retrieval.stub.GetCollection(request, metadata=retrieval.metadata)).collection


async def create(
    retrieval: ServedRetrieval, name: str, **fields: object
) -> pb.CreateCollectionResponse:
    request = pb.CreateCollectionRequest(name=name, **fields)
    response = await retrieval.stub.CreateCollection(request, metadata=retrieval.metadata)
    retrieval.made.append(name)
    return response


async def test_new_collection_shows_what_its_config_was_resolved_to(
    retrieval: ServedRetrieval,
) -> None:
    name = await retrieval.collection(title="A title", metadata={"owner": "me"})
    found = await get(retrieval, name)
    assert (found.name, found.title, dict(found.metadata)) == (name, "A title", {"owner": "me"})
    assert found.config.dimensions == 384
    assert found.config.embedding_application == "embedding"
    assert found.config.metric == pb.METRIC_COSINE
    assert (found.config.chunking.max_tokens, found.config.chunking.overlap_tokens) == (200, 32)
    assert found.config.sparse.k1 == pytest.approx(1.2)
    assert found.config.sparse.language == "english"
    assert (found.num_documents, found.num_chunks) == (0, 0)
    assert found.created_at.seconds > 1_700_000_000


async def test_shown_config_makes_an_equal_collection(retrieval: ServedRetrieval) -> None:
    for name in (await retrieval.collection(), await retrieval.vectors_collection()):
        shown = (await get(retrieval, name)).config
        again = await retrieval.collection(config=shown)
        assert (await get(retrieval, again)).config == shown


async def test_short_chunks_repeat_less_unless_told_otherwise(retrieval: ServedRetrieval) -> None:
    name = await retrieval.collection(
        config=pb.CollectionConfig(chunking=pb.ChunkingConfig(max_tokens=40))
    )
    assert (await get(retrieval, name)).config.chunking.overlap_tokens == 10


async def test_exist_ok_returns_what_is_there_with_the_same_config(
    retrieval: ServedRetrieval,
) -> None:
    name = await retrieval.collection(title="first")
    response = await create(retrieval, name, title="second", exist_ok=True)
    assert response.collection.title == "first"
    assert response.consistency_token


@pytest.mark.parametrize("exist_ok", [False, True])
async def test_name_that_is_taken_is_refused_unless_the_same(
    retrieval: ServedRetrieval, exist_ok: bool
) -> None:
    name = await retrieval.collection()
    config = pb.CollectionConfig(metric=pb.METRIC_DOT if exist_ok else pb.METRIC_COSINE)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(retrieval, name, config=config, exist_ok=exist_ok)
    refused = refusal(caught.value)
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    assert refused.field == "name"


@pytest.mark.parametrize(
    "name", ["", "../../etc", "a/b", ".hidden", "a b", "ä", "x" * 65, "a..b", "a\n", "-x"]
)
async def test_name_that_is_no_name_is_refused(retrieval: ServedRetrieval, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(retrieval, name)
    refused = refusal(caught.value)
    assert (refused.code, refused.field) == (INVALID, "name")


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (pb.CollectionConfig(dimensions=100_000), "config.dimensions"),
        (pb.CollectionConfig(embedding_application="none"), "config.dimensions"),
        (pb.CollectionConfig(embedding_application="llama"), "config.embedding_application"),
        (pb.CollectionConfig(metric=99), "config.metric"),
        (
            pb.CollectionConfig(chunking=pb.ChunkingConfig(max_tokens=4000)),
            "config.chunking.max_tokens",
        ),
        (
            pb.CollectionConfig(chunking=pb.ChunkingConfig(max_tokens=100, overlap_tokens=60)),
            "config.chunking.overlap_tokens",
        ),
        (
            pb.CollectionConfig(
                embedding_application="none",
                dimensions=4,
                chunking=pb.ChunkingConfig(max_tokens=100),
            ),
            "config.chunking",
        ),
        (
            pb.CollectionConfig(sparse=pb.SparseConfig(language="klingon")),
            "config.sparse.language",
        ),
        (pb.CollectionConfig(sparse=pb.SparseConfig(b=float("nan"))), "config.sparse.b"),
        (
            pb.CollectionConfig(
                index_type=pb.INDEX_TYPE_FLAT, index_parameters=pb.IndexParameters(hnsw_m=16)
            ),
            "config.index_parameters.hnsw_m",
        ),
        (
            pb.CollectionConfig(index_parameters=pb.IndexParameters(hnsw_m=1000)),
            "config.index_parameters.hnsw_m",
        ),
        (
            pb.CollectionConfig(
                index_type=pb.INDEX_TYPE_IVF_PQ,
                index_parameters=pb.IndexParameters(pq_num_subvectors=7),
            ),
            "config.index_parameters.pq_num_subvectors",
        ),
    ],
)
async def test_config_that_cannot_be_is_refused_by_name(
    retrieval: ServedRetrieval, config: pb.CollectionConfig, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(retrieval, "never-made", config=config)
    refused = refusal(caught.value)
    assert (refused.code, refused.field) == (INVALID, field)


async def test_update_changes_title_and_metadata_alone(retrieval: ServedRetrieval) -> None:
    name = await retrieval.collection(title="old", metadata={"a": "1"})
    before = await get(retrieval, name)
    request = pb.UpdateCollectionRequest(name=name, title="new")
    changed = await retrieval.stub.UpdateCollection(request, metadata=retrieval.metadata)
    assert (changed.collection.title, dict(changed.collection.metadata)) == ("new", {"a": "1"})
    request = pb.UpdateCollectionRequest(
        name=name, metadata=pb.CollectionMetadata(values={"b": "2"})
    )
    changed = await retrieval.stub.UpdateCollection(request, metadata=retrieval.metadata)
    assert (changed.collection.title, dict(changed.collection.metadata)) == ("new", {"b": "2"})
    assert (await get(retrieval, name)).config == before.config


async def test_collections_are_listed_by_name_in_pages(retrieval: ServedRetrieval) -> None:
    made = sorted([await retrieval.collection() for _ in range(5)])
    listed: list[str] = []
    token = ""
    while True:
        request = pb.ListCollectionsRequest(page_size=2, page_token=token)
        page = await retrieval.stub.ListCollections(request, metadata=retrieval.metadata)
        assert len(page.collections) <= 2
        listed += [one.name for one in page.collections]
        token = page.next_page_token
        if not token:
            break
    assert listed == sorted(listed)
    assert [name for name in listed if name in made] == made


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ListCollectionsRequest(page_size=0), "page_size"),
        (pb.ListCollectionsRequest(page_size=1001), "page_size"),
        (pb.ListCollectionsRequest(page_token="not a token"), "page_token"),
        (pb.ListCollectionsRequest(consistency_token="yesterday"), "consistency_token"),
    ],
)
async def test_listing_with_a_wrong_page_is_refused(
    retrieval: ServedRetrieval, request_: pb.ListCollectionsRequest, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retrieval.stub.ListCollections(request_, metadata=retrieval.metadata)
    assert (refusal(caught.value).code, refusal(caught.value).field) == (INVALID, field)


async def test_deleted_collection_is_gone_with_what_it_held(retrieval: ServedRetrieval) -> None:
    name = await retrieval.collection()
    await retrieval.put(name, [text("a", "A few words.")])
    request = pb.DeleteCollectionRequest(name=name)
    deleted = await retrieval.stub.DeleteCollection(request, metadata=retrieval.metadata)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await get(retrieval, name, deleted.consistency_token)
    refused = refusal(caught.value)
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND")
    made = await create(retrieval, name)
    assert (await get(retrieval, name, made.consistency_token)).num_documents == 0


async def test_unknown_collection_is_not_found_everywhere(retrieval: ServedRetrieval) -> None:
    stub, name = retrieval.stub, "no-such-collection"
    calls = [
        stub.GetCollection(pb.GetCollectionRequest(name=name), metadata=retrieval.metadata),
        stub.UpdateCollection(
            pb.UpdateCollectionRequest(name=name, title="x"), metadata=retrieval.metadata
        ),
        stub.DeleteCollection(pb.DeleteCollectionRequest(name=name), metadata=retrieval.metadata),
        stub.Delete(
            pb.DeleteRequest(collection=name, document_ids=["a"]), metadata=retrieval.metadata
        ),
        stub.Get(pb.GetRequest(collection=name, document_ids=["a"]), metadata=retrieval.metadata),
        stub.ListDocuments(pb.ListDocumentsRequest(collection=name), metadata=retrieval.metadata),
        stub.Search(
            pb.SearchRequest(collection=name, query=pb.SearchQuery(text="a")),
            metadata=retrieval.metadata,
        ),
        stub.SearchBatch(
            pb.SearchBatchRequest(collection=name, queries=[pb.SearchQuery(text="a")]),
            metadata=retrieval.metadata,
        ),
        stub.Rebuild(pb.RebuildRequest(collection=name), metadata=retrieval.metadata),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert refusal(caught.value).reason == "COLLECTION_NOT_FOUND"
        assert refusal(caught.value).field in ("collection", "name")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retrieval.upsert(name, [text("a", "words")])
    assert refusal(caught.value).reason == "COLLECTION_NOT_FOUND"
