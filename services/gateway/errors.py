"""Errors as OpenAI's API spells them: status, `{"error": {message, type, param, code}}`, headers.

The statuses come from the taxonomy's one table in `services.runtime.errors`. Knows nothing of
routes or of gRPC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import orjson
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.responses import Response

from services.runtime.errors import (
    AlreadyExists,
    CollectionNotFound,
    ContextTooLong,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    OrreryError,
    Overloaded,
    PermissionDenied,
    RateLimited,
    ResourceNotFound,
    ServiceNotFound,
    Unauthenticated,
    kind_of,
)

__all__ = [
    "CLIENT_LEFT",
    "RequestRefused",
    "error_body",
    "error_event_body",
    "error_response",
    "refused",
    "validation_refusal",
]

# Not a status of HTTP: nobody reads it. The access log and the metrics say it, as nginx does.
CLIENT_LEFT = 499

_SERVER_ERROR = ("server_error", None)
# Error class -> OpenAI's (type, code). A code of None: the taxonomy's reason in lower case.
_OPENAI_KINDS: Mapping[type[OrreryError], tuple[str, str | None]] = MappingProxyType(
    {
        InvalidRequest: ("invalid_request_error", "invalid_value"),
        ContextTooLong: ("invalid_request_error", "context_length_exceeded"),
        ModelNotFound: ("invalid_request_error", "model_not_found"),
        CollectionNotFound: ("invalid_request_error", None),
        ResourceNotFound: ("invalid_request_error", None),
        ServiceNotFound: ("invalid_request_error", None),
        AlreadyExists: ("invalid_request_error", None),
        Unauthenticated: ("invalid_request_error", "invalid_api_key"),
        PermissionDenied: ("invalid_request_error", "permission_denied"),
        Overloaded: ("rate_limit_error", "server_overloaded"),
        RateLimited: ("rate_limit_error", "rate_limit_exceeded"),
    }
)
# Pydantic's error types -> OpenAI's codes, where one says more than "invalid_value".
_VALIDATION_CODES: Mapping[str, str] = MappingProxyType(
    {
        "extra_forbidden": "unknown_parameter",
        "missing": "missing_required_parameter",
        "unsupported_parameter": "unsupported_parameter",
        "unsupported_content": "unsupported_content",
        "unknown_parameter": "unknown_parameter",
        "invalid_type": "invalid_type",
    }
)
_EXPECTED: Mapping[str, str] = MappingProxyType(
    {
        "string_type": "expected a string",
        "int_type": "expected an integer",
        "float_type": "expected a number",
        "bool_type": "expected true or false",
        # Of forms and query strings, whose values are texts.
        "int_parsing": "expected an integer",
        "float_parsing": "expected a number",
        "bool_parsing": "expected true or false",
        "list_type": "expected a list",
        "dict_type": "expected an object",
        "model_type": "expected an object",
        "model_attributes_type": "expected a JSON object",
        "too_short": "expected at least {min_length} entries, got {actual_length}",
        "too_long": "expected at most {max_length} entries, got {actual_length}",
        "string_too_short": "expected at least {min_length} characters",
        "string_too_long": "expected at most {max_length} characters",
        "greater_than_equal": "expected at least {ge}",
        "less_than_equal": "expected at most {le}",
    }
)


class RequestRefused(HTTPException):
    """A request that HTTP itself refuses: its route, its size, its syntax.

    An `HTTPException`, because FastAPI lets no other exception out while it reads a body.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str) -> None:
        super().__init__(status, message)
        self.param = param
        self.code = code


def error_body(error: Exception) -> dict[str, Any]:
    """The body for an error of the taxonomy or an HTTP one."""
    if isinstance(error, OrreryError):
        kind, code = _openai_kind(error)
        message = error.message
        if isinstance(error, DeadlineExceeded) and error.stage is not None:
            message = f"{message} (stage: {error.stage})"
        return _body(message, kind, error.field, code or kind_of(error).reason.lower())
    assert isinstance(error, HTTPException)
    return _body(
        str(error.detail),
        "invalid_request_error" if error.status_code < 500 else "server_error",
        error.param if isinstance(error, RequestRefused) else None,
        error.code if isinstance(error, RequestRefused) else None,
    )


def error_event_body(error: OrreryError) -> dict[str, Any]:
    """The body where an answer has begun, whose headers can tell no waiting time any more."""
    body = error_body(error)
    wait_s = _retry_after_s(error)
    return body if wait_s is None else {"error": body["error"] | {"retry_after_s": wait_s}}


def error_response(error: Exception) -> Response:
    """The whole answer. Waiting times go to the headers that SDKs read."""
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if isinstance(error, OrreryError):
        status = kind_of(error).http_status
        headers |= _retry_headers(error, status)
    else:
        assert isinstance(error, HTTPException)
        status = error.status_code
    return Response(orjson.dumps(error_body(error)), status, headers, media_type="application/json")


def refused(error: HTTPException) -> HTTPException:
    """The router's own 404 and 405 with a message that says what was expected."""
    if isinstance(error, RequestRefused):
        return error
    status = HTTPStatus(error.status_code)
    message = {
        HTTPStatus.NOT_FOUND: "there is no such route; /docs lists them",
        HTTPStatus.METHOD_NOT_ALLOWED: "this route does not have this method; /docs lists them",
    }.get(status, status.phrase)
    clear = RequestRefused(status, message, code=status.phrase.lower().replace(" ", "_"))
    clear.headers = error.headers
    return clear


def validation_refusal(errors: Sequence[ErrorDetails]) -> RequestRefused:
    """The first of pydantic's errors, its field named as the client wrote it."""
    first = errors[0]
    kind, message = first["type"], first["msg"]
    param = _param(first["loc"][1:])  # after "body"
    if kind == "extra_forbidden":
        message = f"unknown parameter: {param!r}"
    elif kind == "missing":
        message = f"missing required parameter: {param!r}" if param else "expected a JSON body"
    else:
        message = _expected(first)
        message = f"{param}: {message}" if param else message
    code = _VALIDATION_CODES.get(kind)
    if code is None:
        code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    return RequestRefused(HTTPStatus.BAD_REQUEST, message, param=param, code=code)


def _expected(error: ErrorDetails) -> str:
    """Pydantic's message in this project's words, which say what was expected."""
    template = _EXPECTED.get(error["type"])
    if template is not None:
        return template.format(**error.get("ctx", {}))
    message = error["msg"].replace("Input should be", "expected").removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _openai_kind(error: OrreryError) -> tuple[str, str | None]:
    for cls in type(error).__mro__:
        if cls in _OPENAI_KINDS:
            return _OPENAI_KINDS[cls]
    return _SERVER_ERROR


def _body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _retry_headers(error: OrreryError, status: int) -> dict[str, str]:
    if status == HTTPStatus.GATEWAY_TIMEOUT:
        # The SDKs would repeat it, at the same cost and with the same end.
        return {"x-should-retry": "false"}
    wait_s = _retry_after_s(error)
    if wait_s is None:
        return {}
    return {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}


def _retry_after_s(error: OrreryError) -> float | None:
    """When to try again. None: that would not help."""
    status = kind_of(error).http_status
    if status not in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return None
    return error.retry_after_s if error.retry_after_s is not None else 1.0


def _param(loc: Sequence[str | int]) -> str | None:
    """`("messages", 0, "content")` as `messages[0].content`."""
    name = ""
    for part in loc:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part != "[key]":  # pydantic's mark of a dictionary's key
            name += f".{part}" if name else part
    return name or None
