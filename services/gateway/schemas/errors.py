"""OpenAI's shape of an error."""

from __future__ import annotations

from pydantic import BaseModel, Field

__all__ = ["Error", "ErrorBody"]


class Error(BaseModel):
    message: str = Field(description="What is wrong and what was expected.")
    type: str = Field(description="The class of the error, as OpenAI's API names it.")
    param: str | None = Field(description="The field to blame, as the client wrote it.")
    code: str | None = Field(description="Machine-readable reason.")
    retry_after_s: float | None = Field(
        default=None, description="When to try again; only within a stream, elsewhere in headers."
    )


class ErrorBody(BaseModel):
    error: Error
