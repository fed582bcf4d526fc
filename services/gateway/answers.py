"""Sends a generation to the client: as one JSON document or as server-sent events.

Knows nothing of what the document or the events say, nor of gRPC.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import orjson
from starlette.types import Send

from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from services.gateway import sse
from services.gateway.disconnect import WhileConnected
from services.gateway.errors import error_body
from services.gateway.rendering.common import ChunkRenderer, total_usage
from services.runtime.errors import Internal, OrreryError

__all__ = ["json_answer", "streamed_answer"]

Messages = AsyncGenerator[tuple[int, pb.GenerateResponse], None]


def json_answer(make_document: Callable[[], Awaitable[Any]]) -> WhileConnected:
    """The document, once it is made; making it is cancelled when the client leaves."""

    async def work(send: Send) -> None:
        body = orjson.dumps(await make_document())
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return WhileConnected(work)


def streamed_answer(
    begin: Callable[[], Awaitable[tuple[Messages, ChunkRenderer]]], *, include_usage: bool
) -> WhileConnected:
    """Events as the tokens come, then `[DONE]`.

    The status line waits for the first message, so that what fails before it is an HTTP error.
    What fails later is an event with an `error` in OpenAI's shape, and the stream ends without
    `[DONE]`: no client can take a broken answer for a whole one.
    """

    async def work(send: Send) -> None:
        messages, renderer = await begin()
        async with aclosing(messages):
            await _send_events(send, messages, renderer, include_usage)

    return WhileConnected(work)


async def _send_events(
    send: Send, messages: Messages, renderer: ChunkRenderer, include_usage: bool
) -> None:
    usages: dict[int, common_pb2.Usage] = {}
    started = False
    try:
        async for prompt_index, response in messages:
            usages[prompt_index] = response.usage
            events = renderer.render(prompt_index, response)
            if not started:
                started = True
                await _start(send)
            if events:
                await send({"type": "http.response.body", "body": events, "more_body": True})
        if not started:
            raise Internal("the service sent no answer")
    except OrreryError as error:
        if not started:
            raise
        await send({"type": "http.response.body", "body": sse.event(error_body(error))})
        return
    last = renderer.render_usage(total_usage(usages.values())) if include_usage else b""
    await send({"type": "http.response.body", "body": last + sse.DONE})


async def _start(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(sse.HEADERS.items())})
