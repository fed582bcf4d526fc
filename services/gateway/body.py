"""Reads a JSON body: its type, its size while it arrives, its encoding, its syntax.

FastAPI's own reading would buffer any size, and answers in a shape that is not OpenAI's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from email.message import Message
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from services.gateway.errors import CLIENT_LEFT, RequestRefused, validation_refusal

__all__ = ["JsonRoute", "limited_stream", "media_type_of", "read_json", "validated"]

ModelT = TypeVar("ModelT", bound=BaseModel)


class JsonRequest(Request):
    """A request whose body is JSON of at most `GatewayConfig.max_body_bytes` bytes."""

    async def body(self) -> bytes:
        """The whole body. Raises `RequestRefused` as soon as it is known to be too large."""
        if not hasattr(self, "_body"):
            self._check_content_type()
            self._body = await self._read(self.app.state.gateway.config.max_body_bytes)
        return self._body

    async def json(self) -> Any:
        """The body parsed; duplicate keys: the last one counts."""
        body = await self.body()
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise RequestRefused(
                HTTPStatus.BAD_REQUEST,
                f"the body is not valid JSON in UTF-8: {error}",
                code="invalid_json",
            ) from None

    def _check_content_type(self) -> None:
        # A form's type is what curl sends unless told otherwise: say so instead of guessing.
        message = Message()
        message["content-type"] = self.headers.get("content-type", "")
        charset = message.get_content_charset("utf-8")
        if media_type_of(self) != "application/json" or charset not in ("utf-8", "utf8"):
            raise RequestRefused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "expected the header 'content-type: application/json'",
                param="content-type",
                code="unsupported_media_type",
            )

    async def _read(self, limit: int) -> bytes:
        return b"".join([chunk async for chunk in limited_stream(self, limit)])


async def limited_stream(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body as it arrives. Raises `RequestRefused` as soon as it is known to be too large."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            yield chunk
    except ClientDisconnect:
        raise RequestRefused(
            CLIENT_LEFT, "the client left before its request was whole", code="client_left"
        ) from None


def media_type_of(request: Request) -> str:
    """The type of the body, in lower case and without parameters."""
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    return message.get_content_type()


async def read_json(request: Request, model: type[ModelT]) -> ModelT:
    """The body, where a route takes others, too. The route's class is `JsonRoute`."""
    assert isinstance(request, JsonRequest)
    return validated(model, await request.json())


def validated(model: type[ModelT], value: Any) -> ModelT:
    """What a client sent, checked. Raises `RequestRefused`, naming the field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        details[0]["loc"] = ("body", *details[0]["loc"])
        raise validation_refusal(details) from None


def _too_large(limit: int) -> RequestRefused:
    return RequestRefused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"expected a body of at most {limit} bytes",
        code="request_too_large",
    )


class JsonRoute(APIRoute):
    """A route that reads its body by `JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given our request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return handle
