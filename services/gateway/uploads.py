"""Reads a form with one file: its size while it arrives, its parts, their names.

Everything stays in memory, at most `GatewayConfig.max_upload_bytes`: no name that a client chose
touches a file system, and nothing is spooled to one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from services.gateway.body import limited_stream, media_type_of
from services.gateway.errors import RequestRefused

__all__ = ["FORM", "Upload", "read_upload"]

FORM = "multipart/form-data"

_MAX_FIELDS = 16
_MAX_FIELD_BYTES = 64 << 10
# What clients say when they do not know: no type at all.
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Upload:
    """A form: its one file, and its other fields by name."""

    data: bytes
    file_name: str
    media_type: str
    fields: dict[str, str]


async def read_upload(request: Request, known_fields: Collection[str]) -> Upload:
    """The form. Raises `RequestRefused`, naming the field, for what is missing, double or unknown.

    `known_fields` are those beside `file`.
    """
    if media_type_of(request) != FORM:
        raise RequestRefused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"expected the header 'content-type: {FORM}'",
            param="content-type",
            code="unsupported_media_type",
        )
    form = await _parse(request)
    try:
        fields = _fields(form, known_fields)
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise _refused("file", "missing_required_parameter", "missing required parameter: ")
        media_type = (file.content_type or "").partition(";")[0].strip().lower()
        return Upload(
            data=await file.read(),
            file_name=file.filename or "",
            media_type="" if media_type == _UNKNOWN_TYPE else media_type,
            fields=fields,
        )
    finally:
        await form.close()


async def _parse(request: Request) -> FormData:
    limit = request.app.state.gateway.config.max_upload_bytes
    parser = MultiPartParser(
        request.headers,
        limited_stream(request, limit),
        max_files=2,  # the second one is refused below, by name
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    parser.spool_max_size = limit  # larger than any part: nothing goes to a disk
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise RequestRefused(
            HTTPStatus.BAD_REQUEST,
            f"the body is no valid form: {error.message}",
            code="invalid_form",
        ) from None


def _fields(form: FormData, known_fields: Collection[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in form.multi_items():
        if name in seen:
            raise _refused(name, "invalid_value", "expected once: ")
        seen.add(name)
        if name != "file" and name not in known_fields:
            raise _refused(name, "unknown_parameter", "unknown parameter: ")
        if (name == "file") != isinstance(value, UploadFile):
            expected = "expected a file: " if name == "file" else "expected text and not a file: "
            raise _refused(name, "invalid_type", expected)
        if isinstance(value, str):
            fields[name] = value
    return fields


def _refused(name: str, code: str, what: str) -> RequestRefused:
    name = name[:64]
    return RequestRefused(HTTPStatus.BAD_REQUEST, f"{what}{name!r}", param=name, code=code)
