"""What `/docs` says about answers that FastAPI cannot read off a function's types."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from services.gateway.schemas.errors import ErrorBody

__all__ = ["ERROR_RESPONSES", "generation_responses"]

_DESCRIPTIONS: dict[int | str, str] = {
    400: "A field is wrong, unknown or not supported; `param` names it.",
    401: "No API key, or a wrong one.",
    404: "No such model.",
    413: "The body is too large.",
    415: "The body is not `application/json`.",
    429: "The queue is full; `retry-after` says when to come back.",
    "4XX": "Any other fault of the request.",  # and FastAPI does not add a 422 of its own shape
    500: "An internal error.",
    503: "The service is not ready; `retry-after` says when to come back.",
    504: "The deadline of `x-timeout-ms` passed.",
}

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in _DESCRIPTIONS.items()
}


def generation_responses(chunk: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Both forms of a generation's answer, and its errors."""
    description = (
        f"The whole answer; with `stream: true`, events whose data is one `{chunk.__name__}` each "
        "and at the end `[DONE]`. A failure after the first event is an event with an `error`."
    )
    return {
        200: {
            "description": description,
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **ERROR_RESPONSES,
    }
