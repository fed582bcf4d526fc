"""`/v1/images/generations` and `/v1/images/edits` over the real servicer and a scripted engine."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from services.gateway.api import create_api
from services.gateway.schemas.images import ImageEditForm, ImageGenerationRequest
from services.runtime.auth import Authenticator
from tests.fakes.image_gateway import CONFIG, image_gateway
from tests.unit.gateway.drawn import BLUE, RED, half_transparent, opened, png
from tests.unit.gateway.scripted_upstream import ScriptedUpstream

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"
PROMPT = "a red circle left of a blue square"


@pytest.fixture(scope="module")
def images() -> Iterator[httpx.Client]:
    """A client of a gateway with pictures."""
    with image_gateway() as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
        yield client


def generated(client: httpx.Client, **body: Any) -> dict[str, Any]:
    response = client.post(GENERATIONS, json={"prompt": PROMPT, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def edit(client: httpx.Client, files: Any = None, **fields: Any) -> httpx.Response:
    return client.post(
        EDITS, files=files or {"image": ("a.png", png())}, data={"prompt": PROMPT, **fields}
    )


def fault(response: httpx.Response) -> tuple[int, str | None, str]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    if error["param"] is not None:
        assert error["param"] in error["message"]
    return response.status_code, error["param"], error["code"]


def events_of(text: str) -> list[tuple[str | None, Any]]:
    events: list[tuple[str | None, Any]] = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        events.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return events


# --- whole answers ----------------------------------------------------------------------------


def test_pictures_come_by_their_seeds_with_what_made_them(images: httpx.Client) -> None:
    answer = generated(images, n=3, seed=7, size="32x48", steps=4, scheduler="ddim", eta=0.5)
    assert [entry["seed"] for entry in answer["data"]] == [7, 8, 9]
    for entry in answer["data"]:
        picture = opened(entry["b64_json"])
        assert (picture.format, picture.size) == ("PNG", (32, 48))
        assert entry["size"] == "32x48"
        assert entry["recipe"] == {
            "steps": 4,
            "guidance_scale": 7.5,
            "guidance_rescale": 0.0,
            "scheduler": "ddim",
            "eta": 0.5,
        }
        assert "similarity" not in entry
    assert (answer["background"], answer["output_format"]) == ("opaque", "png")
    assert answer["model"] == "scripted-diffusion"
    usage = answer["usage"]
    assert usage["input_tokens"] == usage["total_tokens"] > len(PROMPT.split())
    assert usage["input_tokens_details"] == {
        "text_tokens": usage["input_tokens"],
        "image_tokens": 0,
    }
    assert answer["timing"]["total_ns"] > 0


def test_recipe_and_seed_sent_again_make_the_same_picture(images: httpx.Client) -> None:
    (first,) = generated(images, steps=3, guidance_rescale=0.25, scheduler="euler")["data"]
    (again,) = generated(images, **first["recipe"], seed=first["seed"])["data"]
    assert again == first


def test_unset_parameters_and_nulls_are_the_models_own(images: httpx.Client) -> None:
    nothing = {
        name: None for name in ImageGenerationRequest.model_fields if name not in ("prompt", "seed")
    }
    (first,) = generated(images, seed=1)["data"]
    (second,) = generated(images, seed=1, **nothing)["data"]
    assert first == second
    assert first["size"] == "64x64"
    assert generated(images, seed=1, size="auto")["data"] == [first]


def test_ranked_pictures_come_best_first(images: httpx.Client) -> None:
    answer = generated(images, n=5, top_n=3, rank_by_similarity=True, seed=0)
    scores = [entry["similarity"] for entry in answer["data"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    everything = generated(images, n=5, rank_by_similarity=True, seed=0)["data"]
    assert everything[:3] == answer["data"]
    assert sorted(entry["seed"] for entry in everything) == [0, 1, 2, 3, 4]


def test_model_is_named_by_name_alias_or_application(images: httpx.Client) -> None:
    for name in ("scripted-diffusion", "orrery-diffusion", "diffusion"):
        assert generated(images, model=name, steps=1)["model"] == "scripted-diffusion"
    response = images.post(GENERATIONS, json={"prompt": "x", "model": "dall-e-3"})
    assert fault(response)[::2] == (404, "model_not_found")


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"prompt": None}, "prompt", "invalid_type"),
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": "  "}, "prompt", "invalid_value"),
        ({"prompt": "word " * 90}, "prompt", "context_length_exceeded"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 11}, "n", "invalid_value"),
        ({"n": "2"}, "n", "invalid_type"),
        ({"size": "64"}, "size", "invalid_value"),
        ({"size": "64X64"}, "size", "invalid_value"),
        ({"size": "0x64"}, "size", "invalid_value"),
        ({"size": "65x64"}, "size", "invalid_value"),
        ({"size": "64x99999"}, "size", "invalid_value"),
        ({"size": "50000x50000"}, "size", "invalid_value"),
        ({"size": 64}, "size", "invalid_type"),
        ({"steps": 0}, "steps", "invalid_value"),
        ({"steps": 10_000}, "steps", "invalid_value"),
        ({"steps": 1.5}, "steps", "invalid_type"),
        ({"guidance_scale": 0}, "guidance_scale", "invalid_value"),
        ({"guidance_scale": 1e300}, "guidance_scale", "invalid_value"),
        ({"guidance_rescale": 2}, "guidance_rescale", "invalid_value"),
        ({"eta": 0.5}, "eta", "invalid_value"),
        ({"scheduler": "pndm"}, "scheduler", "invalid_value"),
        ({"scheduler": "ddim", "karras_sigmas": True}, "karras_sigmas", "invalid_value"),
        ({"guidance_scale": 1, "negative_prompt": "x"}, "negative_prompt", "invalid_value"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"seed": 2**63 - 1, "n": 2}, "seed", "invalid_value"),
        ({"top_n": 1}, "top_n", "invalid_value"),
        ({"top_n": 3, "n": 2, "rank_by_similarity": True}, "top_n", "invalid_value"),
        ({"partial_images": 1}, "partial_images", "invalid_value"),
        ({"partial_images": 11, "stream": True}, "partial_images", "invalid_value"),
        ({"image": "x"}, "image", "unknown_parameter"),
        ({"strength": 0.5}, "strength", "unknown_parameter"),
        ({"mask": None}, "mask", "unknown_parameter"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_wrong_request_is_refused_by_name(
    images: httpx.Client, body: dict[str, Any], param: str, code: str, streamed: bool
) -> None:
    stream = {} if param == "partial_images" else {"stream": streamed}
    request = {"prompt": PROMPT, **stream, **body}
    response = images.post(GENERATIONS, json=request)
    assert fault(response) == (400, param, code), response.text


@pytest.mark.parametrize(
    ("parameter", "neutral", "asking"),
    [
        ("response_format", "b64_json", "url"),
        ("output_format", "png", "jpeg"),
        ("output_format", "png", "webp"),
        ("output_compression", 100, 50),
        ("background", "auto", "transparent"),
        ("background", "opaque", "transparent"),
        ("moderation", "auto", "high"),
        ("quality", "auto", "hd"),
        ("quality", "standard", "high"),
        ("style", None, "vivid"),
    ],
)
def test_parameter_that_is_not_supported_is_accepted_only_when_it_asks_for_nothing(
    images: httpx.Client, parameter: str, neutral: Any, asking: Any
) -> None:
    generated(images, **{parameter: neutral}, steps=1)
    body = {"prompt": PROMPT, parameter: asking}
    assert fault(images.post(GENERATIONS, json=body)) == (400, parameter, "unsupported_parameter")


def test_every_parameter_of_openais_api_is_known() -> None:
    from openai.types import image_edit_params, image_generate_params

    theirs = set(image_generate_params.ImageGenerateParamsBase.__annotations__) | {"stream"}
    assert theirs <= set(ImageGenerationRequest.model_fields)
    theirs = set(image_edit_params.ImageEditParamsBase.__annotations__) | {"stream"}
    assert theirs <= set(ImageEditForm.model_fields) | {"image", "mask"}


def test_variations_say_what_there_is_instead(images: httpx.Client) -> None:
    response = images.post("/v1/images/variations", files={"image": png()})
    assert fault(response) == (404, None, "not_found")
    assert "/v1/images/edits" in response.json()["error"]["message"]


# --- streams ----------------------------------------------------------------------------------


def test_partial_pictures_come_before_the_whole_one(images: httpx.Client) -> None:
    body = {"prompt": PROMPT, "seed": 3, "steps": 9, "stream": True, "partial_images": 2}
    response = images.post(GENERATIONS, json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)
    assert [name for name, _ in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
        None,
    ]
    partial, completed = [data for _, data in events[:2]], events[2][1]
    assert [data["partial_image_index"] for data in partial] == [0, 1]
    assert [data["step"] for data in partial] == [3, 6]
    for data in (*partial, completed):
        assert opened(data["b64_json"]).size == (64, 64)
        assert (data["size"], data["image_index"]) == ("64x64", 0)
        assert (data["background"], data["quality"], data["output_format"]) == (
            "opaque",
            "auto",
            "png",
        )
        assert data["created_at"] > 1_700_000_000
    assert all(name == data["type"] for name, data in events[:3])
    whole = generated(images, seed=3, steps=9)
    assert completed["b64_json"] == whole["data"][0]["b64_json"]
    assert completed["usage"] == whole["usage"]


def test_every_picture_of_a_stream_has_its_event_and_the_last_the_usage(
    images: httpx.Client,
) -> None:
    body = {"prompt": PROMPT, "n": 3, "seed": 5, "steps": 4, "stream": True, "partial_images": 1}
    events = events_of(images.post(GENERATIONS, json=body).text)
    assert events[-1][1] == "[DONE]"
    partial = [data for name, data in events if name == "image_generation.partial_image"]
    assert sorted(data["image_index"] for data in partial) == [0, 1, 2]
    completed = [data for name, data in events if name == "image_generation.completed"]
    assert {data["image_index"]: data["seed"] for data in completed} == {0: 5, 1: 6, 2: 7}
    tokens = [data["usage"]["total_tokens"] for data in completed]
    assert tokens[:2] == [0, 0]
    assert tokens[2] > 0
    assert "timing" in completed[2]


def test_stream_of_ranked_pictures_is_in_their_order(images: httpx.Client) -> None:
    body = {"n": 4, "top_n": 2, "rank_by_similarity": True, "seed": 0, "steps": 2}
    whole = generated(images, **body)
    streamed = images.post(GENERATIONS, json={"prompt": PROMPT, "stream": True, **body})
    events = events_of(streamed.text)
    found = [(data["seed"], data["similarity"]) for _, data in events[:-1]]
    assert found == [(entry["seed"], entry["similarity"]) for entry in whole["data"]]
    assert events[-2][1]["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("steps", "wanted", "num"),
    [(1, 3, 0), (2, 3, 1), (4, 3, 3), (30, 3, 3), (30, 10, 9), (5, 0, 0)],
)
def test_partial_pictures_are_at_most_as_many_as_asked_for(
    images: httpx.Client, steps: int, wanted: int, num: int
) -> None:
    body = {"prompt": PROMPT, "steps": steps, "stream": True, "partial_images": wanted}
    events = events_of(images.post(GENERATIONS, json=body).text)
    assert len(events) == num + 2


# --- edits ------------------------------------------------------------------------------------


def test_mask_paints_what_is_transparent_and_keeps_the_rest(images: httpx.Client) -> None:
    files = {"image": ("a.png", png(RED)), "mask": ("m.png", half_transparent())}
    response = edit(images, files, seed="4", steps="10", strength="0.7")
    assert response.status_code == 200, response.text
    (entry,) = response.json()["data"]
    picture = opened(entry["b64_json"])
    assert picture.getpixel((63, 30)) == RED
    assert picture.getpixel((10, 30)) != RED
    assert entry["recipe"]["strength"] == 0.7
    assert entry["seed"] == 4


def test_edit_without_a_mask_has_the_pictures_size_unless_told(images: httpx.Client) -> None:
    files = {"image": ("a.webp", png(BLUE, (48, 32), "WEBP"), "image/webp")}
    assert edit(images, files).json()["data"][0]["size"] == "48x32"
    assert edit(images, files, size="auto").json()["data"][0]["size"] == "48x32"
    assert edit(images, files, size="96x64", n="2").json()["data"][1]["size"] == "96x64"


def test_mask_of_few_colours_or_of_grey_means_the_same(images: httpx.Client) -> None:
    rgba = Image.open(io.BytesIO(half_transparent()))
    kept = edit(images, {"image": png(), "mask": half_transparent()}, seed="1").json()
    for mode in ("LA", "P"):
        mask = io.BytesIO()
        rgba.convert(mode).save(mask, "PNG")
        files = {"image": png(), "mask": mask.getvalue()}
        assert edit(images, files, seed="1").json()["data"] == kept["data"], mode


def test_edit_streams_under_its_own_names(images: httpx.Client) -> None:
    response = edit(images, stream="true", partial_images="1", steps="10", strength="0.5", seed="2")
    events = events_of(response.text)
    assert [name for name, _ in events] == [
        "image_edit.partial_image",
        "image_edit.completed",
        None,
    ]
    assert events[0][1]["step"] == 3  # of the five that strength leaves


def test_empty_fields_of_a_form_are_not_given(images: httpx.Client) -> None:
    empty = dict.fromkeys(set(ImageEditForm.model_fields) - {"prompt", "seed"}, "")
    first = edit(images, seed="1").json()["data"]
    assert edit(images, seed="1", **empty).json()["data"] == first


@pytest.mark.parametrize(
    ("files", "fields", "param", "code"),
    [
        ({"mask": half_transparent()}, {}, "image", "missing_required_parameter"),
        ({"image": png()}, {"prompt": ""}, "prompt", "missing_required_parameter"),
        ({"image": b""}, {}, "image", "invalid_value"),
        ({"image": b"no picture"}, {}, "image", "invalid_value"),
        ({"image": png()[:60]}, {}, "image", "invalid_value"),
        ({"image": ("a.jpg", png(), "image/jpeg")}, {}, "image", "invalid_value"),
        ({"image": png(size=(33, 64))}, {}, "image", "invalid_value"),
        ({"image": png(), "mask": png()}, {}, "mask", "invalid_value"),
        ({"image": png(), "mask": b"no picture"}, {}, "mask", "invalid_value"),
        ({"image": png(), "mask": half_transparent((32, 64))}, {}, "mask", "invalid_value"),
        ([("image", png()), ("image", png())], {}, "image", "invalid_value"),
        ([("image[]", png()), ("image[]", png())], {}, "image", "invalid_value"),
        ([("image", png()), ("mask", png()), ("mask", png())], {}, "mask", "invalid_value"),
        ({"image": png(), "picture": png()}, {}, "picture", "unknown_parameter"),
        ({"image": png()}, {"mask": "text"}, "mask", "invalid_type"),
        ({"image": png()}, {"style": "vivid"}, "style", "unknown_parameter"),
        ({"image": png()}, {"strength": "0"}, "strength", "invalid_value"),
        ({"image": png()}, {"strength": "1.5"}, "strength", "invalid_value"),
        ({"image": png()}, {"strength": "nan"}, "strength", "invalid_value"),
        ({"image": png()}, {"guidance_scale": "nan"}, "guidance_scale", "invalid_value"),
        ({"image": png()}, {"steps": "many"}, "steps", "invalid_value"),
        ({"image": png()}, {"stream": "perhaps"}, "stream", "invalid_value"),
        ({"image": png()}, {"n": "0"}, "n", "invalid_value"),
        ({"image": png()}, {"input_fidelity": "high"}, "input_fidelity", "unsupported_parameter"),
        ({"image": png()}, {"response_format": "url"}, "response_format", "unsupported_parameter"),
        (
            {"image": png()},
            {"output_compression": "9"},
            "output_compression",
            "unsupported_parameter",
        ),
    ],
)
def test_wrong_edit_is_refused_by_name(
    images: httpx.Client, files: Any, fields: dict[str, str], param: str, code: str
) -> None:
    assert fault(edit(images, files, **fields)) == (400, param, code)


def test_bomb_is_refused_by_its_header(images: httpx.Client) -> None:
    bomb = bytearray(png())
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2
    for files in (
        {"image": bytes(bomb)},
        {"image": png(), "mask": bytes(bomb)},
    ):
        status, param, code = fault(edit(images, files))
        assert (status, code) == (400, "invalid_value")
        assert param in files


def test_edit_as_json_is_refused(images: httpx.Client) -> None:
    response = images.post(EDITS, json={"prompt": PROMPT})
    assert fault(response) == (415, "content-type", "unsupported_media_type")


# --- the documentation ------------------------------------------------------------------------


def test_openapi_describes_pictures_in_all_forms() -> None:
    paths = create_api(CONFIG, ScriptedUpstream({}), Authenticator()).openapi()["paths"]
    edits = paths[EDITS]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(edits["required"]) == {"image", "prompt"}
    assert set(edits["properties"]) == {"image", "mask", *ImageEditForm.model_fields}
    classify = paths["/v1/images/classify"]["post"]["requestBody"]["content"]
    assert set(classify) == {"application/json", "multipart/form-data"}
    assert classify["multipart/form-data"]["schema"]["properties"]["image"]["type"] == "array"
    for path in (GENERATIONS, EDITS):
        answers = paths[path]["post"]["responses"]["200"]["content"]
        assert set(answers) == {"application/json", "text/event-stream"}
    assert "/v1/images/variations" not in paths
