"""Sends an answer to the client: as one JSON document or as server-sent events.

Knows nothing of what the document or the events say, nor of gRPC.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import orjson
from starlette.types import Send

from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from services.gateway import sse
from services.gateway.consistency import token_headers
from services.gateway.disconnect import WhileConnected
from services.gateway.errors import error_event_body
from services.gateway.rendering.common import ChunkRenderer, total_usage
from services.runtime.errors import Internal, OrreryError

__all__ = [
    "JSON_TYPE",
    "Header",
    "Written",
    "bytes_answer",
    "event_answer",
    "json_answer",
    "json_body",
    "streamed_answer",
    "written_answer",
]

Header = tuple[bytes, bytes]
JSON_TYPE: Header = (b"content-type", b"application/json")
Messages = AsyncGenerator[tuple[int, pb.GenerateResponse], None]


class Written(NamedTuple):
    """The answer to a write: a document, and the token of `services.gateway.consistency`."""

    document: Any
    consistency_token: str

    @classmethod
    def telling(cls, document: dict[str, Any], token: str) -> Written:
        """One whose shape has room for the token."""
        return cls(document | {"consistency_token": token or None}, token)


def json_answer(make_document: Callable[[], Awaitable[Any]]) -> WhileConnected:
    """The document, once it is made; making it is cancelled when the client leaves."""

    async def written() -> Written:
        return Written(await make_document(), "")

    return written_answer(written)


def written_answer(write: Callable[[], Awaitable[Written]]) -> WhileConnected:
    """The same of a write, whose token goes into the headers."""

    async def content() -> tuple[bytes, Sequence[Header]]:
        document, token = await write()
        return json_body(document), (JSON_TYPE, *token_headers(token))

    return bytes_answer(content)


def json_body(document: Any) -> bytes:
    """The document as text, the numbers of NumPy as they were written."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def bytes_answer(
    make_content: Callable[[], Awaitable[tuple[bytes, Sequence[Header]]]],
) -> WhileConnected:
    """A body and its headers, once they are made."""

    async def work(send: Send) -> None:
        body, given = await make_content()
        headers = [*given, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return WhileConnected(work)


def event_answer(
    begin: Callable[[], Awaitable[AsyncGenerator[bytes, None]]],
    error_event: Callable[[OrreryError], bytes],
) -> WhileConnected:
    """The events of one message after another, then `[DONE]`. A message may have none.

    The status line waits for the first message, so that what fails before it is an HTTP error.
    What fails later is an event with an `error` in OpenAI's shape, and the stream ends without
    `[DONE]`: no client can take a broken answer for a whole one.
    """

    async def work(send: Send) -> None:
        messages = await begin()
        async with aclosing(messages):
            await _send_events(send, messages, error_event)

    return WhileConnected(work)


def streamed_answer(
    begin: Callable[[], Awaitable[tuple[Messages, ChunkRenderer]]], *, include_usage: bool
) -> WhileConnected:
    """A generation's events as the tokens come."""

    async def begin_events() -> AsyncGenerator[bytes, None]:
        messages, renderer = await begin()
        return _chunks(messages, renderer, include_usage)

    return event_answer(begin_events, lambda error: sse.event(error_event_body(error)))


async def _chunks(
    messages: Messages, renderer: ChunkRenderer, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    usages: dict[int, common_pb2.Usage] = {}
    async with aclosing(messages):
        async for prompt_index, response in messages:
            usages[prompt_index] = response.usage
            yield renderer.render(prompt_index, response)
    if include_usage and usages:
        yield renderer.render_usage(total_usage(usages.values()))


async def _send_events(
    send: Send,
    messages: AsyncGenerator[bytes, None],
    error_event: Callable[[OrreryError], bytes],
) -> None:
    started = False
    try:
        async for events in messages:
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
        await send({"type": "http.response.body", "body": error_event(error)})
        return
    await send({"type": "http.response.body", "body": sse.DONE})


async def _start(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(sse.HEADERS.items())})
