"""Uses everything that the platform serves, a little: before one looks at what it told."""

from __future__ import annotations

import httpx

from orrery import Client, Document
from tests.conftest import Platform

COLLECTION = "every-service"
MODELS = ("orrery-llama", "orrery-gpt", "orrery-moe")
TEXT = "The Dorlor returns each winter to Braster. It is 641 metres long. " * 4


def use_every_service(platform: Platform, number: int) -> None:
    """One round; rounds with other numbers ask for other things, and for some of the same."""
    with Client(platform.grpc_target) as client:
        _generate(client)
        _embed(client, number)
        _search(client, number)
        _ask(client)
        _draw(client, number)
        client.moe.analyze(TEXT)
    _over_http(platform)


def _generate(client: Client) -> None:
    for model in MODELS:
        client.generate(TEXT, model=model, max_tokens=24, temperature=0)
        with client.stream(TEXT, model=model, max_tokens=200, ignore_eos=True) as stream:
            next(iter(stream))  # and leaves
    client.score(TEXT, model=MODELS[0])


def _embed(client: Client, number: int) -> None:
    client.embed([TEXT, f"Text number {number}.", f"Text number {number}."])
    client.rerank("How long is it?", [TEXT, "Another passage."])


def _search(client: Client, number: int) -> None:
    client.collections.create(COLLECTION, exist_ok=True)
    client.documents.upsert(
        COLLECTION,
        [
            Document(id="same", content=TEXT),
            Document(id=f"d{number}", content=f"Number {number}. {TEXT}"),
        ],
    )
    client.search(COLLECTION, "How long is the Dorlor?")
    client.search_batch(COLLECTION, ["winter", "Braster"])
    client.collections.snapshot()


def _ask(client: Client) -> None:
    client.ask("How long is the Dorlor?", collection=COLLECTION, conversation="watched")
    client.ask("Who is the captain of the Bratarine?", collection=COLLECTION)


def _draw(client: Client, number: int) -> None:
    drawn = client.images.generate(
        "a red circle", n=2, num_steps=4, seed=number, rank_by_similarity=True
    )
    with client.images.stream("a blue square", num_steps=40) as stream:
        next(iter(stream))  # and leaves
    client.classify(drawn.image.png, ["a circle", "a square"])


def _over_http(platform: Platform) -> None:
    with httpx.Client(base_url=platform.http_url, timeout=60) as http:
        http.get("/v1/models").raise_for_status()
        answer = http.post(
            "/v1/chat/completions",
            json={
                "model": MODELS[0],
                "messages": [{"role": "user", "content": "Question: Who?"}],
                "max_tokens": 4,
            },
        )
        answer.raise_for_status()
        assert http.get("/v1/models/none").status_code == httpx.codes.NOT_FOUND
