"""Asking the gateway over HTTP, as OpenAI's API words it; streams are server-sent events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

from orrery.load.asks import Ask, Chat, Completion, Picture, Question, Texts
from orrery.load.outcomes import Heard, HttpFailure

__all__ = ["async_client", "blocking_client", "hear", "hear_blocking"]

# Callers who are strangers to each other share no connection: none waits for another's.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=256)
_DATA = "data: "
_DONE = "[DONE]"
_EMBEDDING_MODEL = "embedding"
_USAGE = {"stream_options": {"include_usage": True}}


def async_client(url: str, api_key: str | None, timeout_s: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url, headers=_headers(api_key), timeout=timeout_s, limits=_LIMITS
    )


def blocking_client(url: str, api_key: str | None, timeout_s: float) -> httpx.Client:
    return httpx.Client(base_url=url, headers=_headers(api_key), timeout=timeout_s, limits=_LIMITS)


async def hear(client: httpx.AsyncClient, ask: Ask, heard: Heard) -> None:
    """Returns when the whole answer has come. Raises `HttpFailure`, `httpx.HTTPError`."""
    path, body = _worded(ask)
    async with client.stream("POST", path, json=body) as response:
        if response.is_success and body.get("stream"):
            events = _Events(heard)
            async for line in response.aiter_lines():
                events.add(line)
            events.end()
        else:
            await response.aread()
            _check(response)


def hear_blocking(client: httpx.Client, ask: Ask, heard: Heard) -> None:
    """The same, by blocking."""
    path, body = _worded(ask)
    with client.stream("POST", path, json=body) as response:
        if response.is_success and body.get("stream"):
            events = _Events(heard)
            for line in response.iter_lines():
                events.add(line)
            events.end()
        else:
            response.read()
            _check(response)


def _worded(ask: Ask) -> tuple[str, dict[str, Any]]:
    """Path and JSON body."""
    sampling = {"ignore_eos": True, "temperature": 0.0, "stream": True, **_USAGE}
    match ask:
        case Completion(model, prompt, max_tokens):
            body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, **sampling}
            return "/v1/completions", body
        case Chat(model, message, max_tokens):
            messages = [{"role": "user", "content": message}]
            body = {"model": model, "messages": messages, "max_tokens": max_tokens, **sampling}
            return "/v1/chat/completions", body
        case Question(text, collection):
            return "/v1/rag/ask", {"question": text, "collection": collection, "stream": True}
        case Texts(texts):
            return "/v1/embeddings", {"model": _EMBEDDING_MODEL, "input": texts}
        case Picture(text, num_steps, seed):
            return "/v1/images/generations", {"prompt": text, "steps": num_steps, "seed": seed}


@dataclass(slots=True)
class _Events:
    """Server-sent events as they come, line by line."""

    heard: Heard
    is_whole: bool = False

    def add(self, line: str) -> None:
        if not line.startswith(_DATA):
            return
        data = line.removeprefix(_DATA)
        if data == _DONE:
            self.is_whole = True
            return
        event = json.loads(data)
        if "error" in event:
            raise HttpFailure(200, _code(event), event["error"].get("retry_after_s"))
        if text := _text(event):
            self.heard.text(text)
        if usage := event.get("usage"):
            self.heard.num_tokens = usage.get("completion_tokens", 0)

    def end(self) -> None:
        if not self.is_whole:
            raise HttpFailure(200, "STREAM_CUT_SHORT", None)


def _text(event: dict[str, Any]) -> str:
    """What it brings of a completion, a chat, or an answer from documents."""
    if event.get("type") == "delta":
        return str(event.get("text") or event.get("reasoning") or "")
    choices = event.get("choices") or ()
    return "".join(
        choice.get("text") or (choice.get("delta") or {}).get("content") or "" for choice in choices
    )


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    retry_after = response.headers.get("retry-after")
    try:
        code = _code(response.json())
    except ValueError:  # not ours: a proxy's page
        code = ""
    raise HttpFailure(
        response.status_code, code, None if retry_after is None else float(retry_after)
    )


def _code(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("code") or "").upper() if isinstance(error, dict) else ""


def _headers(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}
