"""Collections, documents and searches over HTTP, with the real retrieval service behind."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from orrery.v1 import retrieval_pb2 as pb
from services.gateway.config import GatewayConfig
from services.runtime.errors import DeadlineExceeded, DependencyDown
from tests.unit.gateway.conftest import OpenScripted
from tests.unit.gateway.scripted_upstream import ScriptedUpstream

LAMPS = "# Lamps\nThe keeper Adela Brome lit the lamp of Orrin Vale."


@pytest.fixture
def docs(http: httpx.Client) -> Iterator[httpx.Client]:
    """A client beside an empty collection `docs`."""
    assert http.post("/v1/collections", json={"name": "docs"}).status_code == 200
    yield http
    http.delete("/v1/collections/docs")


@pytest.fixture(scope="module")
def filled(everything: str) -> Iterator[httpx.Client]:
    """A client beside a collection `searched` with two documents, which tests leave as it is."""
    with httpx.Client(base_url=everything, timeout=60) as client:
        client.post("/v1/collections", json={"name": "searched"})
        ships = {"id": "ships", "text": "The brig Marrow carries salt.", "metadata": {"year": 1500}}
        lamps = {"id": "lamps", "text": LAMPS, "metadata": {"year": 1204, "tags": ["light", "old"]}}
        put(client, lamps, ships, collection="searched")
        yield client
        client.delete("/v1/collections/searched")


def put(client: httpx.Client, *documents: dict[str, Any], collection: str = "docs") -> Any:
    url = f"/v1/collections/{collection}/documents"
    response = client.post(url, json={"documents": list(documents)})
    assert response.status_code == 200, response.text
    return response.json()


def error_of(response: httpx.Response) -> tuple[int, str | None, str]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["param"], error["code"]


# --- collections ------------------------------------------------------------------------------


def test_collection_cuts_documents_as_told(http: httpx.Client) -> None:
    chunking = {"max_tokens": 64, "overlap_tokens": 8}
    made = http.post("/v1/collections", json={"name": "cut", "config": {"chunking": chunking}})
    assert made.json()["config"]["chunking"] == chunking
    assert http.delete("/v1/collections/cut").status_code == 200


def test_collection_lives(http: httpx.Client) -> None:
    config = {
        "dimensions": 3,
        "embedding_application": "none",
        "metric": "dot",
        "index": {"type": "hnsw", "hnsw_m": 16},
        "sparse": {"k1": 1.5, "language": "german"},
    }
    body = {"name": "own", "title": "Own", "metadata": {"a": "b"}, "config": config}
    made = http.post("/v1/collections", json=body)
    assert made.status_code == 200, made.text
    collection = made.json()
    assert collection["object"] == "collection"
    assert (collection["title"], collection["metadata"]) == ("Own", {"a": "b"})
    told = collection["config"]
    assert (told["dimensions"], told["metric"]) == (3, "dot")
    assert (told["index"]["type"], told["index"]["hnsw_m"]) == ("hnsw", 16)
    assert told["chunking"] == {"max_tokens": None, "overlap_tokens": None}
    assert told["sparse"] == {"k1": 1.5, "b": 0.75, "language": "german"}
    assert error_of(http.post("/v1/collections", json=body)) == (409, "name", "already_exists")
    assert http.post("/v1/collections", json=body | {"exist_ok": True}).status_code == 200
    changed = http.patch("/v1/collections/own", json={"title": "Mine"}).json()
    assert (changed["title"], changed["metadata"]) == ("Mine", {"a": "b"})
    assert http.patch("/v1/collections/own", json={"metadata": {}}).json()["metadata"] == {}
    assert "own" in [entry["name"] for entry in http.get("/v1/collections").json()["data"]]
    deleted = http.delete("/v1/collections/own").json()
    assert (deleted["name"], deleted["deleted"]) == ("own", True)
    assert error_of(http.get("/v1/collections/own"))[::2] == (404, "collection_not_found")


def test_collections_are_listed_in_pages(http: httpx.Client) -> None:
    names = [f"page-{i}" for i in range(3)]
    for name in names:
        http.post("/v1/collections", json={"name": name})
    found: list[str] = []
    token = ""
    while True:
        page = http.get("/v1/collections", params={"page_size": 1, "page_token": token}).json()
        found += [entry["name"] for entry in page["data"]]
        token = page["next_page_token"]
        if token is None:
            break
    assert [name for name in found if name in names] == names
    assert error_of(http.get("/v1/collections?page_size=0"))[1] == "page_size"
    assert error_of(http.get("/v1/collections?page_token=x"))[1] == "page_token"
    unknown = error_of(http.get("/v1/collections?limit=3"))
    assert unknown == (400, "limit", "unknown_parameter")
    for name in names:
        http.delete(f"/v1/collections/{name}")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "../etc"}, "name"),
        ({"name": "x", "colour": "red"}, "colour"),
        ({"name": "x", "metadata": {"a": 1}}, "metadata"),
        ({"name": "x", "config": {"metric": "l2"}}, "config.metric"),
        ({"name": "x", "config": {"index": {"type": "lsh"}}}, "config.index.type"),
        ({"name": "x", "config": {"index": {"type": "flat", "hnsw_m": 8}}}, "config.index.hnsw_m"),
        ({"name": "x", "config": {"chunking": {"max_tokens": 1}}}, "config.chunking.max_tokens"),
        ({"name": "x", "config": {"embedding_application": "none"}}, "config.dimensions"),
        ({"name": "x", "config": {"sparse": {"k1": "high"}}}, "config.sparse.k1"),
        ({"name": "x", "config": {"sparse": {"language": "klingon"}}}, "config.sparse.language"),
    ],
)
def test_wrong_collection_is_refused_by_name(
    http: httpx.Client, body: dict[str, Any], param: str
) -> None:
    assert error_of(http.post("/v1/collections", json=body))[:2] == (400, param)


def test_rebuild_and_snapshot(docs: httpx.Client) -> None:
    put(docs, {"id": "a", "text": LAMPS})
    assert docs.post("/v1/collections/docs/rebuild").json()["num_documents"] == 1
    snapshot = docs.post("/v1/snapshot").json()
    assert snapshot["num_chunks"] >= 1
    assert snapshot["log_position"]


# --- documents --------------------------------------------------------------------------------


def test_documents_of_all_kinds_go_in_and_are_read_back(docs: httpx.Client) -> None:
    page = base64.b64encode(b"<h1>Ships</h1><p>The brig Marrow carries salt.</p>").decode()
    answer = put(
        docs,
        {"id": "a/lamps.md", "title": "Lamps", "text": LAMPS, "metadata": {"year": 1204}},
        {"id": "ships", "file": {"data": page, "name": "ships.html"}},
    )
    assert [entry["status"] for entry in answer["data"]] == ["added", "added"]
    assert answer["counts"] == {"added": 2, "replaced": 0, "unchanged": 0, "failed": 0}
    again = put(
        docs, {"id": "a/lamps.md", "title": "Lamps", "text": LAMPS, "metadata": {"year": 1204}}
    )
    assert again["data"][0]["status"] == "unchanged"
    document = docs.get("/v1/collections/docs/documents/a/lamps.md").json()
    assert (document["title"], document["metadata"]) == ("Lamps", {"year": 1204})
    assert "chunks" not in document
    url = "/v1/collections/docs/documents/ships"
    whole = docs.get(url, params={"include_chunks": True, "include_vectors": True}).json()
    assert whole["file_name"] == "ships.html"
    assert "Marrow" in whole["chunks"][0]["text"]
    assert len(whole["chunks"][0]["vector"]) == 64
    assert docs.delete(url).json()["deleted"] is True
    assert error_of(docs.get(url)) == (404, "document_id", "resource_not_found")
    assert error_of(docs.delete(url)) == (404, "document_id", "resource_not_found")


def test_metadata_of_every_type_comes_back(docs: httpx.Client) -> None:
    metadata = {"s": "x", "i": 7, "f": 0.5, "b": True, "l": ["p", "q"], "big": 2**53}
    put(docs, {"id": "a", "text": "x", "metadata": metadata})
    assert docs.get("/v1/collections/docs/documents/a").json()["metadata"] == metadata
    fields = {entry["name"]: entry["types"] for entry in _collection(docs)["fields"]}
    assert fields["l"] == ["string_list"]
    assert fields["b"] == ["bool"]


def _collection(client: httpx.Client) -> Any:
    return client.get("/v1/collections/docs").json()


def test_documents_with_vectors_of_the_callers_own(http: httpx.Client) -> None:
    config = {"dimensions": 2, "embedding_application": "none"}
    http.post("/v1/collections", json={"name": "own", "config": config})
    chunks = [{"text": "east", "vector": [1, 0]}, {"text": "north", "vector": [0.0, 1.0]}]
    put(http, {"id": "compass", "chunks": chunks}, collection="own")
    body = {"collection": "own", "query": {"vector": [0.1, 1]}, "k": 1, "include_vectors": True}
    (hit,) = http.post("/v1/search", json=body).json()["hits"]
    assert (hit["text"], hit["vector"]) == ("north", [0.0, 1.0])
    wrong = put(http, {"id": "w", "chunks": [{"text": "x", "vector": [1.0]}]}, collection="own")
    assert wrong["data"][0]["error"]["param"] == "chunks[0].vector"
    refused = http.post("/v1/search", json=body | {"query": {"vector": [1.0]}})
    assert error_of(refused) == (400, "query.vector", "invalid_value")
    http.delete("/v1/collections/own")


def test_document_that_cannot_be_read_does_not_disturb_the_others(docs: httpx.Client) -> None:
    broken = {"data": base64.b64encode(b"%PDF-1.4 nothing").decode(), "name": "broken.pdf"}
    answer = put(docs, {"id": "bad", "file": broken}, {"id": "good", "text": LAMPS})
    bad, good = answer["data"]
    assert (bad["status"], good["status"]) == ("failed", "added")
    assert bad["error"]["param"] == "file"
    assert bad["error"]["message"]
    assert answer["counts"]["failed"] == 1


def test_form_puts_one_file_in(docs: httpx.Client) -> None:
    url = "/v1/collections/docs/documents"
    fields = {"title": "The lamps", "metadata": json.dumps({"year": 1204})}
    answer = docs.post(url, files={"file": ("lamps.md", LAMPS.encode())}, data=fields)
    assert answer.json()["data"][0]["id"] == "lamps.md"
    document = docs.get(f"{url}/lamps.md").json()
    assert (document["title"], document["file_name"]) == ("The lamps", "lamps.md")
    assert document["metadata"] == {"year": 1204}
    named = docs.post(url, files={"file": ("lamps.md", LAMPS.encode())}, data={"id": "my/id"})
    assert named.json()["data"][0]["id"] == "my/id"
    broken = docs.post(url, files={"file": ("broken.pdf", b"%PDF-1.4 nothing")})
    assert error_of(broken) == (400, "file", "invalid_value")


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"data": {"id": "a"}, "files": {"other": ("x", b"")}}, "other", "unknown_parameter"),
        ({"files": {"id": ("x.txt", b"x")}}, "id", "invalid_type"),
        (
            {"files": [("file", ("a.txt", b"a")), ("file", ("b.txt", b"b"))]},
            "file",
            "invalid_value",
        ),
        (
            {"files": {"file": ("a.txt", b"a")}, "data": {"metadata": "{"}},
            "metadata",
            "invalid_value",
        ),
        (
            {"files": {"file": ("a.txt", b"a")}, "data": {"metadata": '{"a": null}'}},
            "metadata",
            "invalid_type",
        ),
        (
            {"files": {"file": ("a.txt", b"a")}, "data": {"colour": "red"}},
            "colour",
            "unknown_parameter",
        ),
        (
            {
                "content": b"--x\r\n",
                "headers": {"content-type": "multipart/form-data; boundary=x"},
            },
            "file",
            "missing_required_parameter",
        ),
        (
            {"content": b"junk", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            None,
            "invalid_form",
        ),
        (
            {"content": b"junk", "headers": {"content-type": "multipart/form-data"}},
            None,
            "invalid_form",
        ),
    ],
)
def test_wrong_form_is_refused_by_name(
    filled: httpx.Client, options: dict[str, Any], param: str | None, code: str
) -> None:
    response = filled.post("/v1/collections/searched/documents", **options)
    assert error_of(response) == (400, param, code)


def test_upload_over_the_limit_is_refused_while_it_arrives(filled: httpx.Client) -> None:
    url = "/v1/collections/searched/documents"
    declared = filled.post(url, files={"file": ("a.txt", b"x" * (13 << 20))})
    assert error_of(declared)[::2] == (413, "request_too_large")

    def pieces() -> Iterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(14):
            yield b"x" * (1 << 20)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    chunked = filled.post(url, content=pieces(), headers=headers)
    assert error_of(chunked)[::2] == (413, "request_too_large")
    text = filled.post(url, content=b"hello", headers={"content-type": "text/plain"})
    assert error_of(text)[::2] == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"text": "x"}, "documents[0].id"),
        ({"id": "a"}, "documents[0]"),
        ({"id": "a", "text": "x", "chunks": [{"text": "y"}]}, "documents[0]"),
        ({"id": "a", "chunks": []}, "documents[0].chunks"),
        ({"id": "a", "file": {"data": "not base64"}}, "documents[0].file.data"),
        ({"id": "a", "file": {"data": 7}}, "documents[0].file.data"),
        ({"id": "a", "text": "x", "metadata": {"m": None}}, "documents[0].metadata"),
        ({"id": "a", "text": "x", "metadata": {"m": [1]}}, "documents[0].metadata"),
        (
            {"id": "a", "chunks": [{"text": "y", "vector": ["1"]}]},
            "documents[0].chunks[0].vector[0]",
        ),
    ],
)
def test_wrong_document_is_refused_by_name(
    filled: httpx.Client, document: dict[str, Any], param: str
) -> None:
    response = filled.post("/v1/collections/searched/documents", json={"documents": [document]})
    assert error_of(response)[:2] == (400, param)


def test_documents_are_listed_filtered_and_deleted(docs: httpx.Client) -> None:
    put(docs, *({"id": f"d{i}", "text": f"text {i}", "metadata": {"n": i}} for i in range(5)))
    url = "/v1/collections/docs/documents"
    first = docs.get(url, params={"page_size": 2}).json()
    assert [entry["id"] for entry in first["data"]] == ["d0", "d1"]
    rest = docs.get(url, params={"page_token": first["next_page_token"]}).json()
    assert [entry["id"] for entry in rest["data"]] == ["d2", "d3", "d4"]
    assert rest["next_page_token"] is None
    late = {"type": "gt", "key": "n", "value": 2}
    page = docs.get(url, params={"filter": json.dumps(late)}).json()
    assert [entry["id"] for entry in page["data"]] == ["d3", "d4"]
    for text in ("{", '{"type": "like"}'):
        assert error_of(docs.get(url, params={"filter": text}))[1] == "filter"
    remove = "/v1/collections/docs/delete"
    inverted = {"type": "not", "filter": late}
    assert docs.post(remove, json={"filter": inverted}).json()["num_deleted"] == 3
    assert docs.post(remove, json={"document_ids": ["d3", "gone"]}).json()["num_deleted"] == 1
    assert [entry["id"] for entry in docs.get(url).json()["data"]] == ["d4"]
    for body in ({}, {"filter": late, "document_ids": ["d4"]}):
        assert docs.post(remove, json=body).status_code == 400


# --- searches ---------------------------------------------------------------------------------


def found(client: httpx.Client, **body: Any) -> list[str]:
    response = client.post(
        "/v1/search", json={"collection": "searched", "query": "lamp salt"} | body
    )
    assert response.status_code == 200, response.text
    return [hit["document_id"] for hit in response.json()["hits"]]


@pytest.mark.parametrize(
    ("condition", "documents"),
    [
        ({"type": "eq", "key": "year", "value": 1204}, {"lamps"}),
        ({"type": "ne", "key": "year", "value": 1204}, {"ships"}),
        ({"type": "in", "key": "year", "value": [1204, 1500]}, {"lamps", "ships"}),
        ({"type": "nin", "key": "year", "value": [1204]}, {"ships"}),
        ({"type": "lt", "key": "year", "value": 1300}, {"lamps"}),
        ({"type": "lte", "key": "year", "value": 1204}, {"lamps"}),
        ({"type": "gte", "key": "year", "value": 1205}, {"ships"}),
        ({"type": "exists", "key": "tags"}, {"lamps"}),
        ({"type": "eq", "key": "tags", "value": "old"}, {"lamps"}),
        ({"type": "eq", "key": "document_id", "value": "ships"}, {"ships"}),
        ({"type": "not", "filter": {"type": "exists", "key": "tags"}}, {"ships"}),
        (
            {
                "type": "or",
                "filters": [
                    {"type": "gt", "key": "year", "value": 1400},
                    {"type": "exists", "key": "tags"},
                ],
            },
            {"lamps", "ships"},
        ),
        (
            {
                "type": "and",
                "filters": [
                    {"type": "gt", "key": "year", "value": 1400},
                    {"type": "exists", "key": "tags"},
                ],
            },
            set(),
        ),
    ],
)
def test_search_applies_filters(
    filled: httpx.Client, condition: dict[str, Any], documents: set[str]
) -> None:
    assert set(found(filled, filter=condition)) == documents


def test_search_tells_scores_places_and_stages(filled: httpx.Client) -> None:
    body = {"collection": "searched", "query": "who lit the lamp", "k": 1, "explain": True}
    answer = filled.post("/v1/search", json=body | {"fusion": {"sparse_weight": 2}}).json()
    (hit,) = answer["hits"]
    assert (hit["id"], hit["document_id"]) == ("lamps#0", "lamps")
    assert hit["text"] == LAMPS[hit["start"] : hit["end"]]
    assert (hit["line_start"], hit["page"]) == (1, None)
    assert hit["sparse_rank"] == 1
    assert hit["score"] > 0
    assert {"embed", "search"} <= {stage["stage"] for stage in answer["timeline"]}
    assert answer["usage"]["prompt_tokens"] > 0
    quiet = filled.post("/v1/search", json=body | {"explain": False, "include_text": False}).json()
    assert "timeline" not in quiet
    assert quiet["hits"][0]["text"] is None if "text" in quiet["hits"][0] else True


def test_many_queries_are_answered_in_their_order(filled: httpx.Client) -> None:
    body = {"collection": "searched", "queries": ["salt", {"text": "keeper"}, " "], "k": 1}
    answer = filled.post("/v1/search", json=body).json()
    first, second, blank = answer["results"]
    assert first["hits"][0]["document_id"] == "ships"
    assert second["hits"][0]["document_id"] == "lamps"
    assert blank["hits"] == []
    assert blank["error"]["code"] == "invalid_value"
    assert "hits" not in answer


def test_search_by_words_alone_with_diversity_and_reranking(filled: httpx.Client) -> None:
    assert found(filled, mode="sparse", query="brig") == ["ships"]
    assert set(found(filled, diversity={"lambda": 0.3}, rerank="bi_encoder")) == {"lamps", "ships"}
    assert len(found(filled, max_per_document=1, k=1)) == 1
    assert found(filled, mode="sparse", min_score=1000) == []


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"collection": None}, "collection"),
        ({"k": 1_000_000}, "k"),
        ({"k": 0}, "k"),
        ({"k": -1}, "k"),
        ({"query": ""}, "query"),
        ({"query": 7}, "query"),
        ({"query": {"text": "a", "words": "b"}}, "query.words"),
        ({"query": {"vector": [1.0]}}, "query.vector"),
        ({"mode": "fuzzy"}, "mode"),
        ({"rerank": "magic"}, "rerank"),
        ({"diversity": {"lambda": 2.0}}, "diversity.lambda"),
        ({"diversity": {"lambda_": 0.5}}, "diversity.lambda_"),
        ({"fusion": {"dense_weight": -1}}, "fusion"),
        ({"min_score": "high"}, "min_score"),
        ({"filter": {"type": "eq", "key": "nothing", "value": 1}}, "filter"),
        ({"filter": {"type": "gt", "key": "year", "value": "1204"}}, "filter"),
        ({"filter": {"type": "like", "key": "year", "value": "x"}}, "filter"),
        ({"filter": {"type": "eq", "key": "year"}}, "filter"),
        ({"filter": {"type": "eq", "key": "year", "value": None}}, "filter"),
        ({"filter": {"type": "in", "key": "year", "value": []}}, "filter"),
        ({"filter": {"type": "and", "filters": []}}, "filter"),
        ({"filter": {"type": "exists", "key": "year", "value": 1}}, "filter"),
        ({"filter": {"type": "gt", "key": "year", "value": True}}, "filter.value"),
        ({"consistency_token": "soon"}, "consistency_token"),
        ({"top_k": 3}, "top_k"),
    ],
)
def test_wrong_search_is_refused_by_name(
    filled: httpx.Client, changes: dict[str, Any], param: str
) -> None:
    body = {"collection": "searched", "query": "lamp"} | changes
    status, named, _ = error_of(filled.post("/v1/search", json=body))
    assert status == 400
    assert (named or "").startswith(param)


def test_deep_filter_is_refused(filled: httpx.Client) -> None:
    condition: dict[str, Any] = {"type": "exists", "key": "year"}
    for _ in range(200):
        condition = {"type": "not", "filter": condition}
    body = {"collection": "searched", "query": "lamp", "filter": condition}
    assert error_of(filled.post("/v1/search", json=body)) == (400, "filter", "invalid_value")


def test_neither_or_both_of_query_and_queries_is_refused(filled: httpx.Client) -> None:
    for body in ({}, {"query": "a", "queries": ["b"]}, {"queries": []}):
        response = filled.post("/v1/search", json={"collection": "searched"} | body)
        assert response.status_code == 400
    both = {"collection": "searched", "queries": ["a"], "explain": True}
    assert filled.post("/v1/search", json=both).status_code == 400


def test_unknown_collection_is_404_everywhere(http: httpx.Client) -> None:
    document = {"documents": [{"id": "a", "text": "x"}]}
    for response in (
        http.post("/v1/search", json={"collection": "nowhere", "query": "a"}),
        http.post("/v1/collections/nowhere/documents", json=document),
        http.post("/v1/collections/nowhere/delete", json={"document_ids": ["a"]}),
        http.post("/v1/collections/nowhere/rebuild"),
        http.get("/v1/collections/nowhere/documents"),
        http.get("/v1/collections/nowhere/documents/a"),
        http.patch("/v1/collections/nowhere", json={"title": "x"}),
        http.delete("/v1/collections/nowhere"),
    ):
        assert error_of(response)[::2] == (404, "collection_not_found"), response.request.url


# --- consistency ------------------------------------------------------------------------------


async def test_token_goes_both_ways(open_scripted: OpenScripted) -> None:
    upstream = ScriptedUpstream(
        {
            "CreateCollection": pb.CreateCollectionResponse(consistency_token="12-1"),
            "Search": pb.SearchResponse(),
            "Upsert": lambda request: pb.UpsertResponse(
                status=pb.UPSERT_STATUS_ADDED,
                consistency_token={"a": "9-9", "b": "10-0", "c": ""}[request.document.id],
            ),
        }
    )
    search = {"collection": "docs", "query": "a"}
    async with open_scripted(upstream) as client:
        await client.post("/v1/search", json=search)
        made = await client.post("/v1/collections", json={"name": "docs"})
        assert made.json()["consistency_token"] == made.headers["x-consistency-token"] == "12-1"
        await client.post("/v1/search", json=search)  # by the cookie
        header = {"x-consistency-token": "13-0"}
        await client.post("/v1/search", json=search, headers=header)
        body = search | {"consistency_token": "14-0"}
        await client.post("/v1/search", json=body, headers=header)
        documents = [{"id": name, "text": "x"} for name in "abc"]
        url = "/v1/collections/docs/documents"
        written = await client.post(url, json={"documents": documents})
        assert written.headers["x-consistency-token"] == "10-0"  # the newest, by number
    tokens = [request.consistency_token for request in upstream.requests("Search")]
    assert tokens == ["", "12-1", "13-0", "14-0"]


async def test_cookie_of_somebody_else_is_left_alone(open_scripted: OpenScripted) -> None:
    upstream = ScriptedUpstream({"Search": pb.SearchResponse()})
    async with open_scripted(upstream) as client:
        client.cookies.set("orrery-consistency", "<script>")
        await client.post("/v1/search", json={"collection": "docs", "query": "a"})
    assert upstream.requests("Search")[0].consistency_token == ""


async def test_documents_that_got_no_answer_are_not_taken_for_done(
    open_scripted: OpenScripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ended_early(*_: Any) -> AsyncIterator[Any]:
        yield pb.UpsertResponse(document_id="a", status=pb.UPSERT_STATUS_ADDED)

    upstream = ScriptedUpstream({})
    monkeypatch.setattr(upstream, "bidi_stream", ended_early)
    body = {"documents": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]}
    async with open_scripted(upstream) as client:
        response = await client.post("/v1/collections/docs/documents", json=body)
    assert error_of(response)[::2] == (503, "dependency_down")


# --- without the service ----------------------------------------------------------------------


async def test_gateway_without_retrieval_says_so(open_scripted: OpenScripted) -> None:
    config = GatewayConfig(applications=("toy",))
    async with open_scripted(ScriptedUpstream({}), config) as client:
        for method, url, body in (
            ("POST", "/v1/search", {"collection": "docs", "query": "a"}),
            ("GET", "/v1/collections", None),
            ("POST", "/v1/collections/docs/documents", {"documents": [{"id": "a", "text": "x"}]}),
            ("GET", "/v1/files", None),
            ("GET", "/v1/vector_stores", None),
            ("POST", "/v1/rag/ask", {"collection": "docs", "question": "a"}),
            ("POST", "/v1/rag/ask", {"collection": "docs", "question": "a", "stream": True}),
        ):
            response = await client.request(method, url, json=body)
            assert error_of(response)[::2] == (404, "service_not_found"), url


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DependencyDown("the log is away", retry_after_s=2), 503, "dependency_down"),
        (DeadlineExceeded("too late", stage="embed"), 504, "deadline_exceeded"),
    ],
)
async def test_failures_of_the_service_have_their_status(
    open_scripted: OpenScripted, error: Exception, status: int, code: str
) -> None:
    async with open_scripted(ScriptedUpstream({"Search": error})) as client:
        response = await client.post("/v1/search", json={"collection": "docs", "query": "a"})
    assert error_of(response)[::2] == (status, code)
    if status == 504:
        assert "(stage: embed)" in response.json()["error"]["message"]
