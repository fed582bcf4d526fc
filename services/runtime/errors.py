"""The taxonomy of errors a client can reach, and its one table to gRPC and HTTP statuses.

    OrreryError
    ├── InvalidRequest           a field of the request is wrong; `field` names it
    │   └── ContextTooLong       the prompt does not fit the model's context
    ├── ModelNotFound            the application serves no model of that name
    ├── CollectionNotFound       no collection of that name
    ├── ResourceNotFound         no file, attachment or conversation of that id
    ├── ServiceNotFound          no service of that name (asked of the health check)
    ├── AlreadyExists            a collection of that name exists and differs
    ├── Unauthenticated          no API key, or a wrong one
    ├── PermissionDenied         the key is right but may not do this
    ├── Overloaded               a queue is full; `retry_after_s` says when to come back
    ├── RateLimited              this caller asks too often; `retry_after_s` likewise
    ├── NotReady                 the service is loading, draining or broken
    ├── DependencyDown           a service or store that this one needs does not answer
    ├── DeadlineExceeded         the caller's time is up
    ├── Cancelled                the caller gave up
    └── Internal                 anything else; says nothing about what broke

On the wire an error is a `google.rpc.Status` with one `google.rpc.ErrorInfo`: `reason` from the
table, `domain` "orrery", and in `metadata` the `field`, `request_id`, `retry_after_s` and `stage`
that are known. This module knows nothing of who raises: services translate their own errors into
these.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

__all__ = [
    "ERROR_DOMAIN",
    "ERROR_TABLE",
    "AlreadyExists",
    "Cancelled",
    "CollectionNotFound",
    "ContextTooLong",
    "DeadlineExceeded",
    "DependencyDown",
    "ErrorKind",
    "Internal",
    "InvalidRequest",
    "ModelNotFound",
    "NotReady",
    "OrreryError",
    "Overloaded",
    "PermissionDenied",
    "RateLimited",
    "ResourceNotFound",
    "ServiceNotFound",
    "Unauthenticated",
    "kind_of",
    "to_status",
]

ERROR_DOMAIN = "orrery"

# gRPC sends the status in HTTP/2 trailers, which many peers cap at 8 KiB in all.
MAX_MESSAGE_CHARS = 1024


class OrreryError(Exception):
    """Base of the taxonomy.

    `field` is the request's parameter to blame, `request_id` the call's id, `retry_after_s` the
    seconds after which trying again makes sense, `stage` where in a call of several stages it
    happened. The message goes to the client: it holds neither
    prompts nor keys nor stack traces.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        stage: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.stage = stage


class InvalidRequest(OrreryError):
    """A field of the request is wrong."""


class ContextTooLong(InvalidRequest):
    """The prompt, or the prompt plus `max_tokens`, does not fit the model's context."""


class ModelNotFound(OrreryError):
    """The application serves no model of that name."""


class CollectionNotFound(OrreryError):
    """There is no collection of that name."""


class ResourceNotFound(OrreryError):
    """There is no file, attachment or conversation of that id."""


class AlreadyExists(OrreryError):
    """What should be created exists, and is not the same."""


class ServiceNotFound(OrreryError):
    """There is no service of that name here."""


class Unauthenticated(OrreryError):
    """No API key was given, or a wrong one."""


class PermissionDenied(OrreryError):
    """The key is right but does not allow this."""


class Overloaded(OrreryError):
    """A bounded queue is full."""


class RateLimited(OrreryError):
    """This caller asks more often than it may."""


class NotReady(OrreryError):
    """The service is loading, draining or broken."""


class DependencyDown(OrreryError):
    """A service or store that this one needs does not answer."""


class DeadlineExceeded(OrreryError):
    """The caller's time is up."""


class Cancelled(OrreryError):
    """The caller gave up."""


class Internal(OrreryError):
    """Anything that no client caused. The message says nothing about what broke."""


class ErrorKind(NamedTuple):
    """One row of the table: the machine-readable reason and the statuses of both transports."""

    reason: str
    grpc_status: grpc.StatusCode
    http_status: int


ERROR_TABLE: Mapping[type[OrreryError], ErrorKind] = MappingProxyType(
    {
        InvalidRequest: ErrorKind("INVALID_REQUEST", grpc.StatusCode.INVALID_ARGUMENT, 400),
        ContextTooLong: ErrorKind("CONTEXT_TOO_LONG", grpc.StatusCode.INVALID_ARGUMENT, 400),
        ModelNotFound: ErrorKind("MODEL_NOT_FOUND", grpc.StatusCode.NOT_FOUND, 404),
        CollectionNotFound: ErrorKind("COLLECTION_NOT_FOUND", grpc.StatusCode.NOT_FOUND, 404),
        ResourceNotFound: ErrorKind("RESOURCE_NOT_FOUND", grpc.StatusCode.NOT_FOUND, 404),
        AlreadyExists: ErrorKind("ALREADY_EXISTS", grpc.StatusCode.ALREADY_EXISTS, 409),
        ServiceNotFound: ErrorKind("SERVICE_NOT_FOUND", grpc.StatusCode.NOT_FOUND, 404),
        Unauthenticated: ErrorKind("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED, 401),
        PermissionDenied: ErrorKind("PERMISSION_DENIED", grpc.StatusCode.PERMISSION_DENIED, 403),
        Overloaded: ErrorKind("OVERLOADED", grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        RateLimited: ErrorKind("RATE_LIMITED", grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        NotReady: ErrorKind("NOT_READY", grpc.StatusCode.UNAVAILABLE, 503),
        DependencyDown: ErrorKind("DEPENDENCY_DOWN", grpc.StatusCode.UNAVAILABLE, 503),
        DeadlineExceeded: ErrorKind("DEADLINE_EXCEEDED", grpc.StatusCode.DEADLINE_EXCEEDED, 504),
        Cancelled: ErrorKind("CANCELLED", grpc.StatusCode.CANCELLED, 499),
        Internal: ErrorKind("INTERNAL", grpc.StatusCode.INTERNAL, 500),
    }
)


def kind_of(error: BaseException) -> ErrorKind:
    """The table's row for an error; anything outside the taxonomy is `Internal`."""
    for cls in type(error).__mro__:
        if cls in ERROR_TABLE:
            return ERROR_TABLE[cls]
    return ERROR_TABLE[Internal]


def to_status(error: OrreryError) -> status_pb2.Status:
    """The error as `google.rpc.Status`, with one `ErrorInfo` among its details."""
    kind = kind_of(error)
    info = error_details_pb2.ErrorInfo(reason=kind.reason, domain=ERROR_DOMAIN)
    if error.field is not None:
        info.metadata["field"] = error.field[:MAX_MESSAGE_CHARS]
    if error.request_id is not None:
        info.metadata["request_id"] = error.request_id
    if error.retry_after_s is not None:
        info.metadata["retry_after_s"] = f"{error.retry_after_s:g}"
    if error.stage is not None:
        info.metadata["stage"] = error.stage
    detail = any_pb2.Any()
    detail.Pack(info)
    code: int = kind.grpc_status.value[0]
    return status_pb2.Status(code=code, message=error.message[:MAX_MESSAGE_CHARS], details=[detail])
