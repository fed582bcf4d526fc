"""Reads forms with files: their size while they arrive, their parts, the parts' names.

Everything stays in memory, at most `GatewayConfig.max_upload_bytes`: no name that a client chose
touches a file system, and nothing is spooled to one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from services.gateway.body import limited_stream, media_type_of
from services.gateway.errors import RequestRefused

__all__ = ["FORM", "Form", "FormShape", "Upload", "UploadedFile", "read_form", "read_upload"]

FORM = "multipart/form-data"

# Of one form. What is too many for a route is refused below, by name.
_MAX_FILES = 256
_MAX_FIELDS = 4096
_MAX_FIELD_BYTES = 64 << 10
# What clients say when they do not know: no type at all.
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class FormShape:
    """The names of a form's parts: `files`, and the `fields` beside them.

    Each comes once; those also in `lists` any number of times, as `name` or as `name[]`.
    """

    files: Collection[str]
    fields: Collection[str]
    lists: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """One file of a form. `file_name` is text and nothing else."""

    data: bytes
    file_name: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Form:
    """What came: files by name, and fields as text, or lists of texts where they are lists."""

    files: dict[str, list[UploadedFile]] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)

    def file(self, name: str) -> UploadedFile:
        """The first of that name. Raises `RequestRefused` where there is none."""
        if name not in self.files:
            raise _refused(name, "missing_required_parameter", "missing required parameter: ")
        return self.files[name][0]

    @property
    def filled_fields(self) -> dict[str, Any]:
        """Without what was left empty: how a form spells null."""
        return {name: value for name, value in self.fields.items() if value != ""}


@dataclass(frozen=True, slots=True)
class Upload:
    """A form: its one file, and its other fields by name."""

    data: bytes
    file_name: str
    media_type: str
    fields: dict[str, str]


async def read_upload(request: Request, known_fields: Collection[str]) -> Upload:
    """A form with one `file`. Raises as `read_form`. `known_fields` are those beside it."""
    form = await read_form(request, FormShape(("file",), known_fields))
    file = form.file("file")
    return Upload(file.data, file.file_name, file.media_type, form.fields)


async def read_form(request: Request, shape: FormShape) -> Form:
    """The form. Raises `RequestRefused`, naming the part, for what is double or unknown."""
    if media_type_of(request) != FORM:
        raise RequestRefused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"expected the header 'content-type: {FORM}'",
            param="content-type",
            code="unsupported_media_type",
        )
    parsed = await _parse(request)
    try:
        form = Form()
        for name, value in parsed.multi_items():
            await _put(form, shape, name, value)
        return form
    finally:
        await parsed.close()


async def _parse(request: Request) -> FormData:
    limit = request.app.state.gateway.config.max_upload_bytes
    parser = MultiPartParser(
        request.headers,
        limited_stream(request, limit),
        max_files=_MAX_FILES,
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


async def _put(form: Form, shape: FormShape, given_name: str, value: UploadFile | str) -> None:
    """Adds one part."""
    name = given_name.removesuffix("[]")
    if name not in shape.lists:
        name = given_name
    if name not in shape.files and name not in shape.fields:
        raise _refused(name, "unknown_parameter", "unknown parameter: ")
    if (name in shape.files) != isinstance(value, UploadFile):
        wants_file = name in shape.files
        expected = "expected a file: " if wants_file else "expected text and not a file: "
        raise _refused(name, "invalid_type", expected)
    if name not in shape.lists and (name in form.files or name in form.fields):
        raise _refused(name, "invalid_value", "expected once: ")
    if isinstance(value, UploadFile):
        form.files.setdefault(name, []).append(await _file(value))
    elif name in shape.lists:
        form.fields.setdefault(name, []).append(value)
    else:
        form.fields[name] = value


async def _file(part: UploadFile) -> UploadedFile:
    media_type = (part.content_type or "").partition(";")[0].strip().lower()
    return UploadedFile(
        data=await part.read(),
        file_name=part.filename or "",
        media_type="" if media_type == _UNKNOWN_TYPE else media_type,
    )


def _refused(name: str, code: str, what: str) -> RequestRefused:
    name = name[:64]
    return RequestRefused(HTTPStatus.BAD_REQUEST, f"{what}{name!r}", param=name, code=code)
