"""`/v1/files`, in OpenAI's shapes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.gateway.schemas.base import QueryModel, Unsupported

__all__ = ["CursorQuery", "File", "FileDeleted", "FileForm", "FileList", "FileQuery"]

_NO_EXPIRY = "files stay until they are deleted"


class FileForm(BaseModel):
    """The fields beside `file` of `POST /v1/files`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: Literal["assistants", "user_data"] = Field(
        description="What files are for here: to be put into vector stores."
    )
    # A form spells an object's fields so.
    expires_after_anchor: Annotated[Any, Unsupported(_NO_EXPIRY)] = Field(
        None, alias="expires_after[anchor]"
    )
    expires_after_seconds: Annotated[Any, Unsupported(_NO_EXPIRY)] = Field(
        None, alias="expires_after[seconds]"
    )


class CursorQuery(QueryModel):
    """A page of a list of OpenAI's API."""

    after: str | None = Field(None, description="Id of the last object of the page before.")
    before: str | None = Field(None, description="Id of the first object of the page after.")
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = Field("desc", description="By the time of creation.")


class FileQuery(QueryModel):
    """A page of files."""

    after: str | None = Field(None, description="Id of the last file of the page before.")
    limit: int = Field(10_000, ge=1, le=10_000)
    order: Literal["asc", "desc"] = Field("desc", description="By the time of creation.")
    purpose: str = Field("", description="Only these.")


class File(BaseModel):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"]
    expires_at: None
    status_details: None


class FileList(BaseModel):
    object: Literal["list"]
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"]
    deleted: Literal[True]
