"""Asking by the `orrery` client, over gRPC. `Client` and `AsyncClient` are asked in the same words.

Clients are made without retries: a refusal is an outcome here, not something to wait out.
"""

from __future__ import annotations

import inspect
from typing import Any

from orrery import AsyncClient, Client
from orrery.load.asks import Ask, Chat, Completion, Picture, Question, Texts
from orrery.load.outcomes import Heard
from orrery.results import AnswerDelta, StreamEvent

__all__ = ["async_client", "blocking_client", "hear", "hear_blocking"]


def async_client(target: str, api_key: str | None, timeout_s: float) -> AsyncClient:
    return AsyncClient(target, api_key=api_key, timeout_s=timeout_s, max_retries=0)


def blocking_client(target: str, api_key: str | None, timeout_s: float) -> Client:
    return Client(target, api_key=api_key, timeout_s=timeout_s, max_retries=0)


async def hear(client: AsyncClient, ask: Ask, heard: Heard) -> None:
    """Returns when the whole answer has come. Raises `OrreryError`."""
    answer = _asked(client, ask)
    if inspect.isawaitable(answer):
        answer = await answer
    if hasattr(answer, "__aiter__"):
        async with answer:
            async for event in answer:
                _note(event, heard)


def hear_blocking(client: Client, ask: Ask, heard: Heard) -> None:
    """The same, by blocking."""
    answer = _asked(client, ask)
    if hasattr(answer, "__next__"):
        with answer:
            for event in answer:
                _note(event, heard)


def _asked(client: Any, ask: Ask) -> Any:
    """A whole answer or a stream of events; of an `AsyncClient`, perhaps still to be awaited."""
    match ask:
        case Completion(model, prompt, max_tokens):
            options = {"max_tokens": max_tokens, "ignore_eos": True, "temperature": 0.0}
            return client.stream(list(prompt), model=model, **options)
        case Chat(model, message, max_tokens):
            options = {"max_tokens": max_tokens, "ignore_eos": True, "temperature": 0.0}
            messages = [{"role": "user", "content": message}]
            return client.stream(messages, model=model, **options)
        case Question(text, collection):
            return client.ask(text, collection=collection, stream=True)
        case Texts(texts):
            return client.embed(texts)
        case Picture(prompt, num_steps, seed):
            return client.images.generate(prompt, num_steps=num_steps, seed=seed)


def _note(event: object, heard: Heard) -> None:
    if isinstance(event, StreamEvent):
        if any(choice.token_ids for choice in event.choices):
            heard.text(event.text)
        heard.num_tokens = event.usage.completion_tokens
    elif isinstance(event, AnswerDelta):
        heard.text(event.text)
