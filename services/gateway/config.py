"""The gateway's own settings. Knows nothing of where they come from."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from services.runtime.message_size import MAX_CONTENT_BYTES

__all__ = ["GatewayConfig"]

_OptionalName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class GatewayConfig(BaseModel):
    """Where the services are and what one HTTP request may cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grpc_target: str = "127.0.0.1:9000"
    # Generation applications to expose; the models they serve are asked of them.
    applications: tuple[_Name, ...] = Field(default=("llama", "gpt"), min_length=1)
    # The other services to expose. Empty: this gateway has none, and its routes say so with 404.
    embedding_applications: tuple[_Name, ...] = ()  # of texts, and of pictures
    image_applications: tuple[_Name, ...] = ()
    retrieval_application: _OptionalName = ""
    rag_application: _OptionalName = ""
    # Time of a request that names none, and the longest one that may be asked for.
    default_timeout_s: float = Field(default=600.0, gt=0)
    max_timeout_s: float = Field(default=3600.0, gt=0)
    # Under way at the same time; one more is refused with 429.
    max_requests: int = Field(default=1024, ge=1)
    # Of a JSON body, and of a form with a file, which goes on in one message.
    max_body_bytes: int = Field(default=8 << 20, ge=1024)
    max_upload_bytes: int = Field(default=12 << 20, ge=1024, le=MAX_CONTENT_BYTES)
    # How long what an application says about its model is believed.
    catalog_ttl_s: float = Field(default=10.0, ge=0)
    # How long `/ready` waits for one service.
    ready_timeout_s: float = Field(default=2.0, gt=0)
    # Repetitions of a call that met a replica going away, before its first token.
    max_retries: int = Field(default=2, ge=0)
    num_channels: int = Field(default=4, ge=1)
    drain_timeout_s: float = Field(default=20.0, ge=0)

    @field_validator("applications", "embedding_applications", "image_applications")
    @classmethod
    def _names_are_unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("expected different names")
        return value

    @model_validator(mode="after")
    def _kinds_are_different_applications(self) -> GatewayConfig:
        if len(set(self.all_applications)) != len(self.all_applications):
            raise ValueError("expected each application to be of one kind")
        return self

    @property
    def all_applications(self) -> tuple[str, ...]:
        """Every application behind this gateway, of whatever kind."""
        return (
            *self.applications,
            *self.embedding_applications,
            *self.image_applications,
            *(name for name in (self.retrieval_application, self.rag_application) if name),
        )
