"""`/v1/files` and `/v1/vector_stores`: what is refused and how, and what only HTTP shows.

That the `openai` client works with them is tested in `tests/integration/test_openai_retrieval.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orrery.v1 import embedding_pb2, file_pb2
from orrery.v1 import retrieval_pb2 as pb
from services.gateway.rendering.vector_stores import content_page
from services.gateway.stores import created_ms_of_id, new_id
from tests.unit.gateway.conftest import OpenScripted
from tests.unit.gateway.scripted_upstream import ScriptedUpstream

TEXT = b"The lamp of Orrin Vale was lit in 1204."


@pytest.fixture(scope="module")
def store(everything: str) -> Iterator[str]:
    """The id of an empty vector store, which tests leave as it is."""
    with httpx.Client(base_url=everything, timeout=60) as client:
        made: str = client.post("/v1/vector_stores", json={"name": "coast"}).json()["id"]
        yield made
        client.delete(f"/v1/vector_stores/{made}")


@pytest.fixture(scope="module")
def stored_file(everything: str) -> Iterator[str]:
    """The id of an uploaded file, which is attached to nothing."""
    with httpx.Client(base_url=everything, timeout=60) as client:
        made = upload(client)
        yield made
        client.delete(f"/v1/files/{made}")


def upload(client: httpx.Client, name: str = "a.txt", data: bytes = TEXT) -> str:
    response = client.post(
        "/v1/files", files={"file": (name, data)}, data={"purpose": "assistants"}
    )
    assert response.status_code == 200, response.text
    file_id: str = response.json()["id"]
    return file_id


def error_of(response: httpx.Response) -> tuple[int, str | None, str]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["param"], error["code"]


STATIC = {"max_chunk_size_tokens": 300, "chunk_overlap_tokens": 10}


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        ("", {"expires_after": {"anchor": "last_active_at", "days": 1}}, "expires_after", "un"),
        ("", {"description": "docs"}, "description", "un"),
        ("", {"metadata": {"a": 1}}, "metadata", "invalid_type"),
        ("", {"colour": "red"}, "colour", "unknown_parameter"),
        ("", {"chunking_strategy": {"type": "static"}}, "chunking_strategy", "invalid_value"),
        (
            "",
            {"chunking_strategy": {"type": "static", "static": {"max_chunk_size_tokens": 1}}},
            "chunking_strategy.static.chunk_overlap_tokens",
            "missing_required_parameter",
        ),
        (
            "",
            {
                "chunking_strategy": {
                    "type": "static",
                    "static": {"max_chunk_size_tokens": 100_000, "chunk_overlap_tokens": 1},
                }
            },
            "chunking_strategy.static.max_chunk_size_tokens",
            "invalid_value",
        ),
        ("", {"file_ids": ["file-1"] * 257}, "file_ids", "invalid_value"),
        ("/{store}", {"expires_after": {"days": 1}}, "expires_after", "un"),
        ("/{store}/files", {}, "file_id", "missing_required_parameter"),
        (
            "/{store}/files",
            {"file_id": "{file}", "attributes": {"a": ["b"]}},
            "attributes",
            "invalid_type",
        ),
        (
            "/{store}/files",
            {"file_id": "{file}", "chunking_strategy": {"type": "static", "static": STATIC}},
            "chunking_strategy",
            "invalid_value",
        ),
        ("/{store}/files/{file}", {}, "attributes", "missing_required_parameter"),
        ("/{store}/file_batches", {}, None, "invalid_value"),
        ("/{store}/file_batches", {"file_ids": []}, "file_ids", "invalid_value"),
        (
            "/{store}/file_batches",
            {"file_ids": ["{file}", "{file}"]},
            "file_ids[1]",
            "invalid_value",
        ),
        (
            "/{store}/file_batches",
            {"files": [{"file_id": "{file}", "colour": 1}]},
            "files[0].colour",
            "unknown_parameter",
        ),
        ("/{store}/search", {}, "query", "missing_required_parameter"),
        ("/{store}/search", {"query": []}, "query", "invalid_value"),
        ("/{store}/search", {"query": "a", "max_num_results": 51}, "max_num_results", None),
        ("/{store}/search", {"query": "a", "max_num_results": 0}, "max_num_results", None),
        ("/{store}/search", {"query": "a", "rewrite_query": True}, "rewrite_query", "un"),
        (
            "/{store}/search",
            {"query": "a", "ranking_options": {"ranker": "default-2024-11-15"}},
            "ranking_options.ranker",
            "invalid_value",
        ),
        (
            "/{store}/search",
            {"query": "a", "ranking_options": {"score_threshold": 2}},
            "ranking_options.score_threshold",
            "invalid_value",
        ),
        ("/{store}/search", {"query": "a", "filters": {"type": "eq"}}, "filters", None),
        ("/{store}/search", {"query": ["a", " "]}, "query[1].text", "invalid_value"),
    ],
)
def test_wrong_request_is_refused_by_name(
    http: httpx.Client,
    store: str,
    stored_file: str,
    path: str,
    body: Any,
    param: str | None,
    code: str | None,
) -> None:
    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{store}", store).replace("{file}", stored_file)
        if isinstance(value, list):
            return [filled(entry) for entry in value]
        if isinstance(value, dict):
            return {key: filled(entry) for key, entry in value.items()}
        return value

    response = http.post("/v1/vector_stores" + filled(path), json=filled(body))
    status, named, coded = error_of(response)
    assert (status, named) == (400, param), response.text
    wanted = "unsupported_parameter" if code == "un" else code
    assert wanted in (None, coded)


def test_what_is_not_there_is_404(http: httpx.Client, store: str) -> None:
    file_id = upload(http)
    missing = "file-" + "0" * 24
    for method, path in (
        ("GET", f"/v1/files/{missing}"),
        ("GET", f"/v1/files/{missing}/content"),
        ("DELETE", f"/v1/files/{missing}"),
        ("GET", f"/v1/vector_stores/{store}/files/{file_id}"),
        ("GET", f"/v1/vector_stores/{store}/files/{file_id}/content"),
        ("DELETE", f"/v1/vector_stores/{store}/files/{file_id}"),
        ("GET", "/v1/vector_stores/vs_1"),
        ("GET", "/v1/vector_stores/vs_1/files"),
        ("GET", f"/v1/vector_stores/{store}/file_batches/vsfb_1"),
        ("POST", f"/v1/vector_stores/{store}/file_batches/vsfb_1/cancel"),
    ):
        assert http.request(method, path).status_code == 404, path
    body = {"attributes": {"a": 1}}
    update = http.post(f"/v1/vector_stores/{store}/files/{file_id}", json=body)
    assert update.status_code == 404  # and it was not attached by that
    assert http.get(f"/v1/vector_stores/{store}").json()["file_counts"]["total"] == 0


def test_wrong_file_id_leaves_no_vector_store_behind(http: httpx.Client) -> None:
    before = len(http.get("/v1/vector_stores?limit=100").json()["data"])
    body = {"name": "x", "file_ids": [upload(http), "file-" + "0" * 24]}
    assert error_of(http.post("/v1/vector_stores", json=body))[:2] == (404, "file_ids[1]")
    assert len(http.get("/v1/vector_stores?limit=100").json()["data"]) == before


def test_file_in_the_browser_is_a_download(http: httpx.Client) -> None:
    page = b"<script>alert(1)</script>"
    response = http.get(f"/v1/files/{upload(http, 'a.html', page)}/content")
    assert response.content == page
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == "attachment"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"files": {"file": ("a", b"x")}}, "purpose", "missing_required_parameter"),
        (
            {"files": {"file": ("a", b"x")}, "data": {"purpose": "batch"}},
            "purpose",
            "invalid_value",
        ),
        (
            {
                "files": {"file": ("a", b"x")},
                "data": {"purpose": "assistants", "expires_after[seconds]": "9"},
            },
            "expires_after[seconds]",
            "unsupported_parameter",
        ),
        ({"json": {"purpose": "assistants"}}, "content-type", "unsupported_media_type"),
    ],
)
def test_wrong_upload_is_refused_by_name(
    http: httpx.Client, options: dict[str, Any], param: str, code: str
) -> None:
    assert error_of(http.post("/v1/files", **options))[1:] == (param, code)


def test_wrong_page_is_refused_by_name(http: httpx.Client, store: str) -> None:
    for path in ("/v1/vector_stores", f"/v1/vector_stores/{store}/files"):
        for query, param in (
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("order=up", "order"),
            ("after=gone", "after"),
            ("before=gone", "before"),
            ("page=2", "page"),
        ):
            assert error_of(http.get(f"{path}?{query}"))[:2] == (400, param)


def test_ids_of_vector_stores_say_when_they_were_made() -> None:
    first, second = created_ms_of_id(new_id()), created_ms_of_id(new_id())
    assert first is not None
    assert second is not None
    assert first <= second < first + 60_000
    assert created_ms_of_id("docs") is None


def test_content_of_overlapping_chunks_has_everything_once() -> None:
    text = "one two three four five"
    spans = [(0, 13), (8, 18), (10, 18), (19, 23)]
    chunks = [pb.Chunk(text=text[start:end], start=start, end=end) for start, end in spans]
    pieces = [piece["text"] for piece in content_page(chunks)["data"]]
    assert pieces == ["one two three", " four", "five"]


async def test_score_is_what_the_threshold_is_compared_with(open_scripted: OpenScripted) -> None:
    def hit(name: str, score: float, dense: float | None) -> pb.Hit:
        chunk = pb.Chunk(id=f"{name}#0", document_id=name, file_name=f"{name}.md", text=name)
        return pb.Hit(chunk=chunk, score=score, dense_score=dense)

    results = [
        pb.SearchResult(hits=[hit("a", 0.09, 0.4), hit("b", 0.05, 0.7)]),
        pb.SearchResult(hits=[hit("c", 0.07, None), hit("a", 0.02, 0.1)]),
    ]
    upstream = ScriptedUpstream({"SearchBatch": pb.SearchBatchResponse(results=results)})
    ranking = {
        "ranker": "bi_encoder",
        "score_threshold": 0.25,
        "hybrid_search": {"embedding_weight": 2, "text_weight": 0.5},
    }
    body = {"query": ["x", "y"], "max_num_results": 3, "ranking_options": ranking}
    async with open_scripted(upstream) as client:
        page = (await client.post("/v1/vector_stores/docs/search", json=body)).json()
    assert [entry["file_id"] for entry in page["data"]] == ["a", "c", "b"]
    assert [entry["score"] for entry in page["data"]] == [0.4, 0.07, 0.7]
    assert page["search_query"] == ["x", "y"]
    (request,) = upstream.requests("SearchBatch")
    assert request.options.min_score == 0.25
    assert request.options.rerank == embedding_pb2.RERANK_METHOD_BI_ENCODER
    assert request.options.fusion.dense_weight == 2
    assert request.options.k == 3


async def test_vector_store_with_files_reads_the_newest_write(open_scripted: OpenScripted) -> None:
    tokens = iter(["11-0", "9-0", "10-3"])
    upstream = ScriptedUpstream(
        {
            "GetFile": file_pb2.GetFileResponse(),
            "CreateCollection": pb.CreateCollectionResponse(consistency_token="8-0"),
            "AttachFile": lambda request: file_pb2.AttachFileResponse(
                attachment=file_pb2.Attachment(
                    file_id=request.file_id, status=file_pb2.ATTACHMENT_STATUS_COMPLETED
                ),
                consistency_token=next(tokens),
            ),
            "GetCollection": pb.GetCollectionResponse(collection=pb.Collection(title="coast")),
        }
    )
    body = {"name": "coast", "file_ids": ["file-a", "file-b", "file-c"]}
    async with open_scripted(upstream) as client:
        response = await client.post("/v1/vector_stores", json=body)
    assert response.json()["file_counts"]["completed"] == 3
    assert upstream.requests("GetCollection")[0].consistency_token == "11-0"
    assert response.headers["x-consistency-token"] == "11-0"
