"""The official `openai` client embeds, uploads, attaches and searches as it does against OpenAI."""

from __future__ import annotations

import io
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai.types import CreateEmbeddingResponse, FileObject, VectorStore
from openai.types.vector_stores import VectorStoreFile, VectorStoreFileBatch

from tests.integration.conftest import RetrievalApi

LAMPS = b"""# Lamps

## The lamp of Orrin Vale
The lamp of Orrin Vale was lit in 1204 by the keeper Adela Brome.

## The lamp of Tessel Head
The lamp of Tessel Head burns whale oil and is seen for nine leagues.
"""
SHIPS = b"The brig Marrow carries salt to the southern ports every spring.\n"
PRICES = b"item,price\nwick,3\noil,11\n"


@pytest.fixture
def client(retrieval_api: RetrievalApi) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=retrieval_api.base_url, api_key="unused", max_retries=0, timeout=60
    ) as client:
        yield client
        for store in client.vector_stores.list(limit=2):  # deletes what the next page begins after
            if store.id.startswith("vs_"):
                client.vector_stores.delete(store.id)
        for file in client.files.list():
            client.files.delete(file.id)


@pytest_asyncio.fixture
async def async_client(retrieval_api: RetrievalApi) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=retrieval_api.base_url, api_key="unused", max_retries=0, timeout=60
    ) as client:
        yield client


def upload(client: openai.OpenAI, name: str, data: bytes) -> FileObject:
    return client.files.create(file=(name, data), purpose="assistants")


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


# --- embeddings -------------------------------------------------------------------------------


def test_embeddings_are_unit_vectors_near_for_near_texts(
    client: openai.OpenAI, retrieval_api: RetrievalApi
) -> None:
    texts = ["A lamp burns in the tower.", "There is a light in the tower.", "Salt is cheap."]
    answer = client.embeddings.create(model=retrieval_api.embedding_model, input=texts)
    assert isinstance(answer, CreateEmbeddingResponse)
    vectors = [entry.embedding for entry in answer.data]
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    assert all(math.isclose(cosine(v, v), 1.0, abs_tol=1e-3) for v in vectors)
    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2]) + 0.2
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 10


def test_embedding_formats_say_the_same(client: openai.OpenAI, retrieval_api: RetrievalApi) -> None:
    model = retrieval_api.embedding_model
    # Without a format the SDK asks for base64 and decodes it itself.
    decoded = client.embeddings.create(model=model, input="A lamp").data[0].embedding
    floats = client.embeddings.create(model=model, input="A lamp", encoding_format="float")
    assert floats.data[0].embedding == pytest.approx(decoded, abs=1e-6)
    raw = client.embeddings.create(model=model, input="A lamp", encoding_format="base64")
    assert isinstance(raw.data[0].embedding, str)


def test_embedding_of_fewer_dimensions_has_length_one(
    client: openai.OpenAI, retrieval_api: RetrievalApi
) -> None:
    answer = client.embeddings.create(
        model=retrieval_api.embedding_model, input="A lamp", dimensions=64
    )
    vector = answer.data[0].embedding
    assert len(vector) == 64
    assert cosine(vector, vector) == pytest.approx(1.0, abs=1e-3)


def test_embedding_of_token_ids(client: openai.OpenAI, retrieval_api: RetrievalApi) -> None:
    model = retrieval_api.embedding_model
    one = client.embeddings.create(model=model, input=[2019, 10437])
    many = client.embeddings.create(model=model, input=[[2019, 10437], [3000]])
    assert many.data[0].embedding == pytest.approx(one.data[0].embedding, abs=2e-2)
    assert len(many.data) == 2


def test_embedding_model_is_listed(client: openai.OpenAI, retrieval_api: RetrievalApi) -> None:
    model = client.models.retrieve(retrieval_api.embedding_model)
    assert model.id in [entry.id for entry in client.models.list()]
    assert client.embeddings.create(model=model.id, input="x").model == model.id


def test_wrong_embedding_requests_are_refused_by_name(
    client: openai.OpenAI, retrieval_api: RetrievalApi
) -> None:
    model = retrieval_api.embedding_model
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="text-embedding-3-small", input="x")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as empty:
        client.embeddings.create(model=model, input=["a", ""])
    assert empty.value.param == "input[1]"
    with pytest.raises(openai.BadRequestError) as wide:
        client.embeddings.create(model=model, input="a", dimensions=100_000)
    assert wide.value.param == "dimensions"


# --- files ------------------------------------------------------------------------------------


def test_file_comes_back_as_it_was_uploaded(client: openai.OpenAI) -> None:
    data = bytes(range(256)) * 300
    file = client.files.create(file=("odd name é;.bin", data), purpose="user_data")
    assert file.filename == "odd name é;.bin"
    assert (file.bytes, file.purpose, file.status) == (len(data), "user_data", "processed")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == data
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_files_are_listed_by_page_purpose_and_order(client: openai.OpenAI) -> None:
    ids = [upload(client, f"{i}.txt", b"x").id for i in range(5)]
    other = client.files.create(file=io.BytesIO(b"y"), purpose="user_data").id
    assert [file.id for file in client.files.list(limit=2)] == [other, *reversed(ids)]
    assert [file.id for file in client.files.list(order="asc", limit=4)] == [*ids, other]
    assert [file.id for file in client.files.list(purpose="assistants")] == ids[::-1]
    page = client.files.list(limit=2, purpose="assistants")
    assert (len(page.data), page.has_more) == (2, True)
    assert page.get_next_page().data[0].id == ids[2]


def test_wrong_files_are_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as purpose:
        client.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
    assert purpose.value.param == "purpose"
    with pytest.raises(openai.BadRequestError) as expiry:
        client.files.create(
            file=("a.txt", b"x"),
            purpose="assistants",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
    assert expiry.value.param == "expires_after[anchor]"
    for name, data in (("a.txt", b""), ("../../etc/passwd", b"x")):
        with pytest.raises(openai.BadRequestError) as wrong:
            client.files.create(file=(name, data), purpose="assistants")
        assert wrong.value.param == "file"
    with pytest.raises(openai.APIStatusError) as huge:
        client.files.create(file=("a.txt", b"x" * (13 << 20)), purpose="assistants")
    assert huge.value.status_code == 413


# --- vector stores ----------------------------------------------------------------------------


def test_vector_store_lives_as_openais_does(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="The coast", metadata={"owner": "Vale"})
    assert isinstance(store, VectorStore)
    assert store.id.startswith("vs_")
    assert (store.name, store.metadata, store.status) == (
        "The coast",
        {"owner": "Vale"},
        "completed",
    )
    assert store.file_counts.total == 0
    assert client.vector_stores.retrieve(store.id).created_at == store.created_at
    changed = client.vector_stores.update(store.id, name="The sea", metadata={})
    assert (changed.name, changed.metadata) == ("The sea", {})
    assert client.vector_stores.retrieve(store.id).name == "The sea"
    deleted = client.vector_stores.delete(store.id)
    assert (deleted.id, deleted.deleted) == (store.id, True)
    with pytest.raises(openai.NotFoundError) as gone:
        client.vector_stores.retrieve(store.id)
    assert gone.value.code == "collection_not_found"


def test_vector_stores_are_listed_by_page_and_order(client: openai.OpenAI) -> None:
    ids = [client.vector_stores.create(name=str(i)).id for i in range(5)]

    def ours(stores: Any) -> list[str]:
        return [store.id for store in stores if store.id in ids]

    assert ours(client.vector_stores.list(limit=2)) == ids[::-1]
    assert ours(client.vector_stores.list(limit=2, order="asc")) == ids
    before = client.vector_stores.list(before=ids[1], limit=2, order="desc")
    assert [store.id for store in before.data] == [ids[3], ids[2]]
    with pytest.raises(openai.BadRequestError) as unknown:
        client.vector_stores.list(after="somewhere")
    assert unknown.value.param == "after"


def test_file_is_attached_searched_read_and_taken_out(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="coast")
    file = upload(client, "lamps.md", LAMPS)
    attached = client.vector_stores.files.create_and_poll(
        file.id, vector_store_id=store.id, attributes={"year": 1204, "kind": "lamp", "lit": True}
    )
    assert isinstance(attached, VectorStoreFile)
    assert (attached.status, attached.last_error) == ("completed", None)
    assert attached.attributes == {"year": 1204, "kind": "lamp", "lit": True}
    assert client.vector_stores.retrieve(store.id).file_counts.completed == 1

    page = client.vector_stores.search(store.id, query="Who lit the lamp of Orrin Vale?")
    best = page.data[0]
    assert (best.file_id, best.filename) == (file.id, "lamps.md")
    assert "Adela Brome" in best.content[0].text
    assert best.attributes == attached.attributes
    assert 0.5 < best.score <= 1.0

    content = client.vector_stores.files.content(file.id, vector_store_id=store.id)
    text = " ".join(piece.text or "" for piece in content)
    assert text.count("whale oil") == text.count("Adela Brome") == 1

    changed = client.vector_stores.files.update(
        file.id, vector_store_id=store.id, attributes={"year": 1300}
    )
    assert changed.attributes == {"year": 1300}
    found = client.vector_stores.search(store.id, query="lamp")
    assert found.data[0].attributes == {"year": 1300}

    client.vector_stores.files.delete(file.id, vector_store_id=store.id)
    assert client.vector_stores.search(store.id, query="lamp").data == []
    assert client.vector_stores.files.list(store.id).data == []
    assert client.files.retrieve(file.id).id == file.id


def test_vector_store_is_made_with_files_and_chunks(client: openai.OpenAI) -> None:
    files = [upload(client, "lamps.md", LAMPS), upload(client, "ships.txt", SHIPS)]
    store = client.vector_stores.create(
        name="coast",
        file_ids=[file.id for file in files],
        chunking_strategy={
            "type": "static",
            "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 20},
        },
    )
    assert store.file_counts.completed == store.file_counts.total == 2
    assert store.usage_bytes > 0
    attached = client.vector_stores.files.list(store.id)
    assert {file.id for file in attached} == {file.id for file in files}
    strategy: Any = attached.data[0].chunking_strategy
    assert (strategy.type, strategy.static.max_chunk_size_tokens) == ("static", 100)


def test_search_honours_filters_limits_and_thresholds(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="coast")
    for name, data, year in (("lamps.md", LAMPS, 1204), ("ships.txt", SHIPS, 1500)):
        client.vector_stores.files.create(
            store.id, file_id=upload(client, name, data).id, attributes={"year": year}
        )

    def names(query: Any, **options: Any) -> list[str]:
        page = client.vector_stores.search(store.id, query=query, **options)
        return [hit.filename for hit in page.data]

    late: Any = {"type": "gte", "key": "year", "value": 1300}
    assert set(names("lamp", filters=late)) == {"ships.txt"}
    both: Any = {"type": "and", "filters": [late, {"type": "in", "key": "year", "value": [1204]}]}
    assert names("lamp", filters=both) == []
    either: Any = {"type": "or", "filters": [late, {"type": "eq", "key": "year", "value": 1204}]}
    assert set(names("lamp", filters=either)) == {"lamps.md", "ships.txt"}
    assert len(names("lamp", max_num_results=1)) == 1
    assert set(names(["lamp of Orrin Vale", "salt to the southern ports"])) == {
        "lamps.md",
        "ships.txt",
    }
    near = client.vector_stores.search(
        store.id, query="salt to the southern ports", ranking_options={"score_threshold": 0.5}
    )
    assert [hit.filename for hit in near.data] == ["ships.txt"]
    assert all(hit.score >= 0.5 for hit in near.data)


def test_search_refuses_by_name_what_it_cannot_do(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="coast", file_ids=[upload(client, "a.txt", SHIPS).id])
    with pytest.raises(openai.BadRequestError) as rewriting:
        client.vector_stores.search(store.id, query="x", rewrite_query=True)
    assert (rewriting.value.param, rewriting.value.code) == (
        "rewrite_query",
        "unsupported_parameter",
    )
    missing: Any = {"type": "eq", "key": "nothing", "value": 1}
    with pytest.raises(openai.BadRequestError) as field:
        client.vector_stores.search(store.id, query="x", filters=missing)
    assert field.value.param == "filters"
    with pytest.raises(openai.BadRequestError) as expiry:
        client.vector_stores.create(expires_after={"anchor": "last_active_at", "days": 7})
    assert expiry.value.param == "expires_after"
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.search("vs_000000000000000000000000", query="x")
    with pytest.raises(openai.NotFoundError) as file:
        client.vector_stores.create(file_ids=["file-000000000000000000000000"])
    assert file.value.param == "file_ids[0]"


def test_file_that_cannot_be_read_fails_alone(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="coast")
    good = upload(client, "ships.txt", SHIPS)
    bad = upload(client, "broken.pdf", b"%PDF-1.4 and then nothing")
    batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=[good.id, bad.id])
    assert isinstance(batch, VectorStoreFileBatch)
    assert batch.status == "completed"
    assert (batch.file_counts.completed, batch.file_counts.failed) == (1, 1)
    (failed,) = client.vector_stores.files.list(store.id, filter="failed")
    assert failed.id == bad.id
    assert failed.last_error is not None
    assert failed.last_error.code == "invalid_file"
    assert failed.last_error.message


def test_batch_is_found_again_by_its_id(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="coast")
    other = client.vector_stores.create(name="elsewhere")
    upload_one = upload(client, "prices.csv", PRICES)
    client.vector_stores.files.create(store.id, file_id=upload_one.id)
    batch = client.vector_stores.file_batches.upload_and_poll(
        store.id, files=[("lamps.md", LAMPS), ("ships.txt", SHIPS)]
    )
    assert batch.file_counts.completed == batch.file_counts.total == 2
    again = client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id)
    assert again == batch
    files = client.vector_stores.file_batches.list_files(
        batch.id, vector_store_id=store.id, limit=1
    )
    listed = [file.id for file in files]
    assert len(listed) == 2
    assert upload_one.id not in listed
    assert client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id) == batch
    client.vector_stores.files.delete(listed[0], vector_store_id=store.id)
    after = client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id)
    assert (after.file_counts.completed, after.file_counts.cancelled) == (1, 1)
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=other.id)
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.file_batches.retrieve("vsfb_abc", vector_store_id=store.id)


def test_batch_gives_each_file_attributes_of_its_own(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="coast")
    lamps, ships = upload(client, "lamps.md", LAMPS), upload(client, "ships.txt", SHIPS)
    client.vector_stores.file_batches.create(
        store.id,
        files=[
            {"file_id": lamps.id, "attributes": {"kind": "lamp"}},
            {"file_id": ships.id, "attributes": {"kind": "ship"}},
        ],
    )
    kinds = {file.id: file.attributes for file in client.vector_stores.files.list(store.id)}
    assert kinds == {lamps.id: {"kind": "lamp"}, ships.id: {"kind": "ship"}}


def test_collection_and_vector_store_are_one_thing(
    client: openai.OpenAI, retrieval_api: RetrievalApi
) -> None:
    store = client.vector_stores.create(name="coast", file_ids=[upload(client, "a.txt", SHIPS).id])
    with httpx.Client(base_url=retrieval_api.base_url) as http:
        collection = http.get(f"/collections/{store.id}").json()
        assert (collection["title"], collection["num_documents"]) == ("coast", 1)
        body = {"documents": [{"id": "own", "text": "The lamp of Orrin Vale was lit in 1204."}]}
        written = http.post(f"/collections/{store.id}/documents", json=body)
        token = written.headers["x-consistency-token"]
    page = client.vector_stores.search(
        store.id, query="Orrin Vale", extra_headers={"x-consistency-token": token}
    )
    assert page.data[0].file_id == "own"


async def test_async_client_works_alike(async_client: openai.AsyncOpenAI) -> None:
    store = await async_client.vector_stores.create(name="coast")
    attached = await async_client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("lamps.md", LAMPS)
    )
    assert attached.status == "completed"
    page = await async_client.vector_stores.search(store.id, query="whale oil")
    assert "whale oil" in page.data[0].content[0].text
    assert (await async_client.vector_stores.delete(store.id)).deleted
    assert (await async_client.files.delete(attached.id)).deleted
