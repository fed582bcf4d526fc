"""Pictures that are looked at: embedded, classified, searched by; over a real small CLIP model."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from orrery.v1 import common_pb2, retrieval_pb2
from orrery.v1 import embedding_pb2 as pb
from services.runtime.errors import InvalidRequest
from tests.fakes.hash_embedding import HashEmbeddingServicer
from tests.fakes.image_gateway import image_gateway
from tests.fakes.retrieval_gateway import retrieval_gateway
from tests.unit.gateway.conftest import OpenScripted
from tests.unit.gateway.drawn import BLUE, GREEN, RED, data_url, png
from tests.unit.gateway.scripted_upstream import ScriptedUpstream

EMBEDDINGS = "/v1/embeddings"
CLASSIFY = "/v1/images/classify"
LABELS = ["a red circle", "a blue square", "a star"]
INFO = pb.GetEmbeddingModelResponse(
    model="clip",
    dimensions=2,
    modalities=[pb.MODALITY_TEXT, pb.MODALITY_IMAGE],
    max_image_bytes=4096,
)


@pytest.fixture(scope="module")
def clip() -> Iterator[httpx.Client]:
    """A client of a gateway with a CLIP model."""
    with (
        image_gateway(clip=True) as gateway,
        httpx.Client(base_url=gateway.url, timeout=60) as client,
    ):
        yield client


def picture(url: Any, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def embed(client: httpx.Client, given: Any, **body: Any) -> httpx.Response:
    return client.post(EMBEDDINGS, json={"model": "clip", "input": given, **body})


def vectors(response: httpx.Response) -> list[list[float]]:
    assert response.status_code == 200, response.text
    return [entry["embedding"] for entry in response.json()["data"]]


def fault(response: httpx.Response) -> tuple[int, str | None, str]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["param"], error["code"]


# --- embeddings -------------------------------------------------------------------------------


def test_texts_and_pictures_are_embedded_in_their_order(clip: httpx.Client) -> None:
    red, blue = data_url(png(RED)), data_url(png(BLUE, kind="JPEG"), "image/jpeg")
    mixed = embed(clip, [picture(red), "a lamp", picture(blue), text("a ship")])
    assert [entry["index"] for entry in mixed.json()["data"]] == [0, 1, 2, 3]
    (one,) = vectors(embed(clip, picture(red)))
    (other,) = vectors(embed(clip, [{"type": "image_url", "image_url": blue}]))
    lamp, ship = vectors(embed(clip, ["a lamp", "a ship"]))
    for found, alone in zip(vectors(mixed), (one, lamp, other, ship), strict=True):
        assert found == pytest.approx(alone, abs=1e-5)
    assert all(math.isclose(math.hypot(*vector), 1, abs_tol=1e-4) for vector in vectors(mixed))
    texts = embed(clip, ["a lamp", "a ship"]).json()["usage"]
    assert mixed.json()["usage"] == texts
    assert embed(clip, picture(red)).json()["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


def test_pictures_obey_format_and_dimensions(clip: httpx.Client) -> None:
    given = [picture(data_url(png())), "a lamp"]
    for vector in vectors(embed(clip, given, dimensions=8)):
        assert len(vector) == 8
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-4)
    coded = vectors(embed(clip, given, dimensions=8, encoding_format="base64"))
    assert [len(base64.b64decode(entry)) for entry in coded] == [32, 32]


def test_base64_alone_is_a_picture_too(clip: httpx.Client) -> None:
    plain = base64.b64encode(png()).decode()
    assert vectors(embed(clip, picture(plain))) == vectors(embed(clip, picture(data_url(png()))))
    headed = f"data:image/png;name=a;base64,{plain}"
    assert vectors(embed(clip, picture(headed))) == vectors(embed(clip, picture(plain)))


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        ([picture("https://example.com/a.png")], "input[0].image_url.url", "unsupported_content"),
        (["a", picture("http://x/a")], "input[1].image_url.url", "unsupported_content"),
        ([picture("file:///etc/passwd")], "input[0].image_url.url", "unsupported_content"),
        ([picture("data:image/png,abc")], "input[0].image_url.url", "invalid_value"),
        ([picture("data:image/png;base64")], "input[0].image_url.url", "invalid_value"),
        ([picture(7)], "input[0].image_url.url", "invalid_type"),
        ([picture("AAAA", detail="high")], "input[0].image_url.detail", "unsupported_parameter"),
        ([picture("AAAA", size=1)], "input[0].image_url.size", "unknown_parameter"),
        ([{"type": "image_url"}], "input[0]", "invalid_value"),
        ([{"type": "text", "text": "a", "image_url": "AAAA"}], "input[0]", "invalid_value"),
        ([{"type": "audio"}], "input[0].type", "invalid_value"),
        ([{"text": "a"}], "input[0].type", "missing_required_parameter"),
        ([text("a"), 7], "input[1]", "invalid_type"),
        ([text("a"), [1, 2]], "input[1]", "invalid_type"),
        (["a", picture("AAA")], "input[1]", "invalid_value"),
        (["a", picture("not base64!")], "input[1]", "invalid_value"),
        (["a", picture("é")], "input[1]", "invalid_value"),
        (["a", picture("")], "input[1].image_url.url", "invalid_value"),
        ([picture("data:image/png;base64,")], "input[0].image_url.url", "invalid_value"),
        (["a", picture(data_url(b"no picture"))], "input[1]", "invalid_value"),
        ([picture(data_url(png())), picture(data_url(png()[:70]))], "input[1]", "invalid_value"),
        (["a", picture(data_url(png(), "image/jpeg"))], "input[1]", "invalid_value"),
        ([picture(data_url(png())), ""], "input[1]", "invalid_value"),
    ],
)
def test_wrong_input_is_refused_by_its_place(
    clip: httpx.Client, given: Any, param: str, code: str
) -> None:
    response = embed(clip, given)
    assert fault(response) == (400, param, code), response.text
    assert param in response.json()["error"]["message"]


def test_options_of_texts_are_refused_where_there_are_only_pictures(clip: httpx.Client) -> None:
    only = [picture(data_url(png()))]
    assert embed(clip, only, purpose="query").status_code == 400
    assert "truncate" in embed(clip, only, truncate=True).json()["error"]["message"]
    assert embed(clip, only, truncate=False).status_code == 200
    answer = embed(clip, [*only, "a lamp"], truncate=True)
    assert [entry["truncated"] for entry in answer.json()["data"]] == [False, False]


def test_model_of_texts_alone_says_so(http: httpx.Client) -> None:
    body = {"model": "hash", "input": ["a", picture(data_url(png()))]}
    response = http.post(EMBEDDINGS, json=body)
    assert fault(response) == (400, "input[1]", "invalid_value")
    assert "embeds texts" in response.json()["error"]["message"]


async def test_picture_over_the_models_limit_is_not_decoded(open_scripted: OpenScripted) -> None:
    upstream = ScriptedUpstream({"GetEmbeddingModel": INFO})
    async with open_scripted(upstream) as client:
        body = {"model": "clip", "input": [picture("!" * 6000)]}  # no base64 at all
        response = await client.post(EMBEDDINGS, json=body)
    assert fault(response) == (400, "input[0]", "invalid_value")
    assert "4096" in response.json()["error"]["message"]
    assert not upstream.requests("EmbedImage")


async def test_services_fields_are_those_of_the_one_list(open_scripted: OpenScripted) -> None:
    texts = pb.EmbedTextResponse(embeddings=[pb.Embedding(values=[1.0])])
    wrong = InvalidRequest("images[1].data: broken", field="images[1].data")
    upstream = ScriptedUpstream(
        {"GetEmbeddingModel": INFO, "EmbedText": texts, "EmbedImage": wrong}
    )
    given = ["a", picture("AAAA"), "b", picture("AAAA")]
    async with open_scripted(upstream) as client:
        response = await client.post(EMBEDDINGS, json={"model": "clip", "input": given})
    error = response.json()["error"]
    assert (error["param"], error["message"]) == ("input[3]", "input[3]: broken")


@pytest.mark.parametrize(
    ("url", "body", "param"),
    [
        (EMBEDDINGS, {"model": "clip", "input": [picture("AAAA")] * 3000}, "input"),
        (EMBEDDINGS, {"model": "clip", "input": [picture("")] * 3000}, "input"),
        (EMBEDDINGS, {"model": "clip", "input": [""] * 3000}, "input"),
        (EMBEDDINGS, {"model": "clip", "input": [[]] * 3000}, "input"),
        (CLASSIFY, {"labels": LABELS, "images": ["AAAA"] * 3000}, "images"),
        ("/v1/search", {"collection": "docs", "queries": [{"image": "AAAA"}] * 3000}, "queries"),
        ("/v1/rerank", {"query": "a", "documents": [""] * 3000}, "documents"),
    ],
)
async def test_more_entries_than_any_service_takes_are_refused_before_they_are_read(
    open_scripted: OpenScripted, url: str, body: dict[str, Any], param: str
) -> None:
    upstream = ScriptedUpstream({})
    async with open_scripted(upstream) as client:
        response = await client.post(url, json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["message"] == f"{param}: expected at most 2048 entries, got 3000"
    assert (error["param"], error["code"]) == (param, "invalid_value")
    assert not upstream.asked


# --- classification ---------------------------------------------------------------------------


def test_form_and_json_are_classified_alike(clip: httpx.Client) -> None:
    form = clip.post(
        CLASSIFY,
        files=[("image", ("a.png", png(RED))), ("image", ("b.png", png(GREEN)))],
        data={"labels": LABELS, "templates": ["a picture of {}", "{}"], "top_n": "2"},
    )
    body = {
        "images": [data_url(png(RED)), base64.b64encode(png(GREEN)).decode()],
        "labels": LABELS,
        "templates": ["a picture of {}", "{}"],
        "top_n": 2,
    }
    as_json = clip.post(CLASSIFY, json=body)
    assert form.status_code == as_json.status_code == 200, form.text + as_json.text
    answer = form.json()
    assert answer["data"] == as_json.json()["data"]
    assert (answer["object"], answer["model"]) == ("list", "tiny-clip")
    assert [entry["index"] for entry in answer["data"]] == [0, 1]
    for entry in answer["data"]:
        assert entry["object"] == "classification"
        first, second = entry["scores"]
        assert first["probability"] >= second["probability"]
        for score in entry["scores"]:
            assert score["label"] == LABELS[score["index"]]
            assert -1 <= score["similarity"] <= 1
    assert answer["usage"]["prompt_tokens"] > 0


def test_probabilities_are_of_all_labels(clip: httpx.Client) -> None:
    body = {"image": data_url(png(RED)), "labels": LABELS, "model": "clip"}
    (entry,) = clip.post(CLASSIFY, json=body).json()["data"]
    assert sorted(score["index"] for score in entry["scores"]) == [0, 1, 2]
    assert sum(score["probability"] for score in entry["scores"]) == pytest.approx(1, abs=1e-4)


ONE = {"image": data_url(png())}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"labels": LABELS}, None, "invalid_value"),
        (
            {"image": ONE["image"], "images": [ONE["image"]], "labels": LABELS},
            None,
            "invalid_value",
        ),
        (ONE, "labels", "missing_required_parameter"),
        (ONE | {"labels": ["one"]}, "labels", "invalid_value"),
        (ONE | {"labels": ["a", "a"]}, "labels[1]", "invalid_value"),
        (ONE | {"labels": ["a", 1]}, "labels[1]", "invalid_type"),
        (ONE | {"labels": LABELS, "templates": ["no place"]}, "templates[0]", "invalid_value"),
        (ONE | {"labels": LABELS, "templates": []}, "templates", "invalid_value"),
        (ONE | {"labels": LABELS, "top_n": 0}, "top_n", "invalid_value"),
        (ONE | {"labels": LABELS, "k": 1}, "k", "unknown_parameter"),
        ({"image": "https://x/a.png", "labels": LABELS}, "image", "unsupported_content"),
        ({"image": "%%%", "labels": LABELS}, "image", "invalid_value"),
        ({"image": data_url(b"no picture"), "labels": LABELS}, "image", "invalid_value"),
        ({"images": [ONE["image"], "AAAA"], "labels": LABELS}, "images[1]", "invalid_value"),
        ({"images": [ONE["image"], "?"], "labels": LABELS}, "images[1]", "invalid_value"),
        ({"images": [ONE["image"], ""], "labels": LABELS}, "images[1]", "invalid_value"),
    ],
)
def test_wrong_classification_is_refused_by_name(
    clip: httpx.Client, body: dict[str, Any], param: str | None, code: str
) -> None:
    response = clip.post(CLASSIFY, json=body)
    assert fault(response) == (400, param, code), response.text


@pytest.mark.parametrize(
    ("files", "fields", "param", "code"),
    [
        ([("image", b"no picture")], {"labels": LABELS}, "image", "invalid_value"),
        (
            [("image", png()), ("image", b"no picture")],
            {"labels": LABELS},
            "image[1]",
            "invalid_value",
        ),
        ([("picture", png())], {"labels": LABELS}, "picture", "unknown_parameter"),
        ([("image", png())], {}, "labels", "missing_required_parameter"),
        ([("image", png())], {"labels": LABELS, "top_n": "all"}, "top_n", "invalid_value"),
        ([("image", png())], {"labels": LABELS, "top_n": ["1", "2"]}, "top_n", "invalid_value"),
        ([("labels", png())], {"image": "text"}, "image", "invalid_type"),
    ],
)
def test_wrong_form_is_refused_by_name(
    clip: httpx.Client, files: Any, fields: dict[str, Any], param: str, code: str
) -> None:
    response = clip.post(CLASSIFY, files=files, data=fields)
    assert fault(response) == (400, param, code), response.text


def test_form_without_a_picture_is_refused(clip: httpx.Client) -> None:
    boundary = "b" * 8
    part = f'--{boundary}\r\ncontent-disposition: form-data; name="labels"\r\n\r\na\r\n'
    response = clip.post(
        CLASSIFY,
        content=f"{part}{part}--{boundary}--\r\n".encode(),
        headers={"content-type": f"multipart/form-data; boundary={boundary}"},
    )
    assert fault(response) == (400, "image", "missing_required_parameter")


def test_only_models_that_embed_pictures_classify(http: httpx.Client) -> None:
    body = ONE | {"labels": LABELS}
    assert fault(http.post(CLASSIFY, json=body)) == (404, "model", "model_not_found")
    named = http.post(CLASSIFY, json=body | {"model": "hash"})
    assert fault(named) == (400, "model", "invalid_value")


# --- models -----------------------------------------------------------------------------------


def test_models_say_what_they_read_and_make(clip: httpx.Client) -> None:
    models = {model["id"]: model for model in clip.get("/v1/models").json()["data"]}
    assert set(models) == {"toy", "tiny-clip", "scripted-diffusion"}
    assert models["tiny-clip"]["modalities"] == ["text", "image"]
    limits = models["scripted-diffusion"]["image"]
    assert (limits["default_size"], limits["size_multiple"]) == ("64x64", 8)
    assert limits["default_scheduler"] in limits["schedulers"]
    assert len(limits["schedulers"]) == 4
    assert limits["can_rank"] is True
    assert (limits["default_strength"], limits["default_karras_sigmas"]) == (0.8, False)
    assert "image" not in models["toy"]
    for name in ("diffusion", "orrery-diffusion", "scripted-diffusion"):
        assert clip.get(f"/v1/models/{name}").json() == models["scripted-diffusion"]
    assert clip.get("/v1/models/clip").json() == models["tiny-clip"]
    assert clip.get("/v1/models/nothing").status_code == 404


def test_ready_names_the_services_of_pictures(clip: httpx.Client) -> None:
    services = clip.get("/ready").json()["services"]
    assert {name: service["status"] for name, service in services.items()} == {
        "toy": "ready",
        "clip": "ready",
        "diffusion": "ready",
    }


# --- collections ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client beside a collection `gallery` of three pictures: a picture's vector here is that of
    the word for its colour.
    """
    folder: Path = tmp_path_factory.mktemp("gallery")
    embedding = HashEmbeddingServicer(embeds_pictures=True)
    with (
        retrieval_gateway(folder, embedding=embedding) as gateway,
        httpx.Client(base_url=gateway.url, timeout=60) as client,
    ):
        assert client.post("/v1/collections", json={"name": "gallery"}).status_code == 200
        url = "/v1/collections/gallery/documents"
        for name, colour in (("red.png", RED), ("green.png", GREEN)):
            response = client.post(url, files={"file": (name, png(colour), "image/png")})
            assert response.status_code == 200, response.text
        file = {"data": base64.b64encode(png(BLUE)).decode(), "name": "blue.png"}
        document = {"id": "blue", "title": "The sea", "file": file}
        response = client.post(url, json={"documents": [document]})
        assert response.json()["data"][0]["status"] == "added", response.text
        yield client


def search(client: httpx.Client, **body: Any) -> Any:
    response = client.post("/v1/search", json={"collection": "gallery", **body})
    assert response.status_code == 200, response.text
    return response.json()


def test_pictures_are_found_by_text_and_by_picture(gallery: httpx.Client) -> None:
    assert search(gallery, query="green", mode="dense")["hits"][0]["document_id"] == "green.png"
    hit = search(gallery, query={"image": data_url(png(BLUE, (9, 9)))})["hits"][0]
    assert (hit["document_id"], hit["media_type"]) == ("blue", "image/png")
    assert hit["dense_score"] == pytest.approx(1.0, abs=1e-5)
    assert hit["metadata"]["image_width"] == 64


def test_many_searches_by_picture_at_once(gallery: httpx.Client) -> None:
    plain = base64.b64encode(png(RED)).decode()
    queries = [{"image": plain}, "green", {"image": data_url(b"no picture")}]
    red, green, broken = search(gallery, queries=queries, k=1)["results"]
    assert red["hits"][0]["document_id"] == "red.png"
    assert green["hits"][0]["document_id"] == "green.png"
    assert broken["error"]["param"] == "queries[2].image"


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ({"image": "https://example.com/a.png"}, "query.image", "unsupported_content"),
        ({"image": "?"}, "query.image", "invalid_value"),
        ({"image": data_url(b"no picture")}, "query.image", "invalid_value"),
        ({"image": data_url(png()), "vector": [0.0] * 64}, "query.image", "invalid_value"),
        ({"picture": "AAAA"}, "query.picture", "unknown_parameter"),
        ({"image": ""}, "query.image", "invalid_value"),
    ],
)
def test_wrong_picture_of_a_query_is_refused_by_name(
    gallery: httpx.Client, query: Any, param: str, code: str
) -> None:
    response = gallery.post("/v1/search", json={"collection": "gallery", "query": query})
    assert fault(response) == (400, param, code), response.text


async def test_picture_and_its_type_reach_the_retrieval_service(
    open_scripted: OpenScripted,
) -> None:
    upstream = ScriptedUpstream({"Search": retrieval_pb2.SearchResponse()})
    data = png((1, 2, 3), (300, 300), "BMP")  # large enough to be decoded beside the event loop
    query = {"text": "lamp", "image": data_url(data, "image/bmp")}
    async with open_scripted(upstream) as client:
        await client.post("/v1/search", json={"collection": "docs", "query": query})
    (request,) = upstream.requests("Search")
    assert request.query.text == "lamp"
    assert request.query.image == common_pb2.ImageContent(data=data, media_type="image/bmp")
