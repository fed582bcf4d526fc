"""What `/docs` says about answers that FastAPI cannot read off a function's types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from services.gateway.schemas.errors import ErrorBody

__all__ = [
    "ERROR_RESPONSES",
    "FormFile",
    "either_body",
    "form_body",
    "generation_responses",
    "stream_response",
]

_DESCRIPTIONS: dict[int | str, str] = {
    400: "A field is wrong, unknown or not supported; `param` names it.",
    401: "No API key, or a wrong one.",
    404: "No such model, collection, document, file or service.",
    409: "It exists and is not the same.",
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
    return stream_response(description)


def stream_response(description: str) -> dict[int | str, dict[str, Any]]:
    """An answer that comes whole or as events, and its errors."""
    return {
        200: {
            "description": description,
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **ERROR_RESPONSES,
    }


class FormFile(NamedTuple):
    """A file in a form."""

    name: str
    required: bool = True
    is_list: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """As OpenAPI describes it."""
        one = {"type": "string", "contentMediaType": "application/octet-stream"}
        return {"type": "array", "minItems": 1, "items": one} if self.is_list else one


_FILE = FormFile("file")


def form_body(fields: type[BaseModel], *files: FormFile) -> dict[str, Any]:
    """A form with files (default: one, `file`) and the fields of a model."""
    return {"requestBody": {"required": True, "content": _form(fields, files or (_FILE,))}}


def either_body(body: type[BaseModel], fields: type[BaseModel], *files: FormFile) -> dict[str, Any]:
    """A JSON body, or a form likewise."""
    content = {
        "application/json": {"schema": _inlined(body)},
        **_form(fields, files or (_FILE,)),
    }
    return {"requestBody": {"required": True, "content": content}}


def _form(fields: type[BaseModel], files: Sequence[FormFile]) -> dict[str, Any]:
    schema = _inlined(fields)
    schema["properties"] = {
        **{file.name: file.schema for file in files},
        **schema["properties"],
    }
    required = [file.name for file in files if file.required]
    schema["required"] = [*required, *schema.get("required", ())]
    return {"multipart/form-data": {"schema": schema}}


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    """A model's schema that refers to nothing outside itself."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, list):
            return [resolved(entry) for entry in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolved(definitions[node["$ref"].rpartition("/")[2]])
        return {key: resolved(value) for key, value in node.items()}

    result: dict[str, Any] = resolved(schema)
    return result
