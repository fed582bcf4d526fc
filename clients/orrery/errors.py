"""Everything a call through this client can raise, as one tree.

    OrreryError
    ├── InvalidRequestError          a field of the request is wrong; `field` names it
    │   └── ContextTooLongError      the prompt, or prompt and max_tokens, does not fit the context
    ├── NotFoundError
    │   ├── ModelNotFoundError       no application serves this model
    │   ├── CollectionNotFoundError  no such collection of documents
    │   ├── ResourceNotFoundError    no such file, attachment or conversation
    │   └── ServiceNotFoundError     no such application, or it has no such service
    ├── AlreadyExistsError           what should be created exists, and is not the same
    ├── AuthenticationError          the API key is missing or wrong
    ├── PermissionDeniedError        the key is known and may not do this
    ├── OverloadedError              a queue is full; `retry_after_s` says when to try again
    │   └── RateLimitedError         this caller has used up its share
    ├── UnavailableError             nobody answers
    │   ├── NotReadyError            the model is still being loaded
    │   ├── DependencyDownError      a service that this one needs does not answer
    │   └── ConnectionLostError      the server went away in the middle of the call
    ├── DeadlineExceededError        the call's time was up
    ├── CancelledError               the call was cancelled: by `close()`, or by the server
    └── InternalError                the server failed; it tells no more than its request id

Every error has `message`, `reason` (upper snake case, stable, as in `google.rpc.ErrorInfo`),
`field`, `request_id` (quote it when asking about a failure; the server's log has it),
`retry_after_s` and `stage` (where in a call of several stages it happened). Cancelling an asyncio
task raises `asyncio.CancelledError`, as everywhere.

A wrong Python type (`temperature="hot"`, an unknown keyword) is a `TypeError`, as for any function.

This module knows nothing of gRPC: `orrery.status` turns a gRPC status into one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "ERRORS_BY_REASON",
    "AlreadyExistsError",
    "AuthenticationError",
    "CancelledError",
    "CollectionNotFoundError",
    "ConnectionLostError",
    "ContextTooLongError",
    "DeadlineExceededError",
    "DependencyDownError",
    "InternalError",
    "InvalidRequestError",
    "ModelNotFoundError",
    "NotFoundError",
    "NotReadyError",
    "OrreryError",
    "OverloadedError",
    "PermissionDeniedError",
    "RateLimitedError",
    "ResourceNotFoundError",
    "ServiceNotFoundError",
    "UnavailableError",
]


class OrreryError(Exception):
    """Base of the tree.

    Args:
        message: What went wrong and what was expected, in one sentence.
        reason: Machine-readable reason; the class's own by default.
        field: The request field to blame.
        request_id: The id of the call.
        retry_after_s: When the server thinks that trying again makes sense, in seconds from now.
        stage: Which stage of a call of several stages spent its time or failed.
    """

    default_reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        field: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        stage: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.field = field
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.stage = stage

    def __repr__(self) -> str:
        details = [repr(self.message), f"reason={self.reason!r}"]
        for name in ("field", "request_id", "retry_after_s", "stage"):
            value = getattr(self, name)
            if value is not None:
                details.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(details)})"


class InvalidRequestError(OrreryError):
    """A field of the request is wrong; `field` names it and the message says what was expected."""

    default_reason = "INVALID_REQUEST"


class ContextTooLongError(InvalidRequestError):
    """The prompt, or the prompt and `max_tokens` together, does not fit the model's context."""

    default_reason = "CONTEXT_TOO_LONG"


class NotFoundError(OrreryError):
    """What the request names does not exist."""

    default_reason = "NOT_FOUND"


class ModelNotFoundError(NotFoundError):
    """No application of the platform serves the model."""

    default_reason = "MODEL_NOT_FOUND"


class CollectionNotFoundError(NotFoundError):
    """There is no such collection of documents."""

    default_reason = "COLLECTION_NOT_FOUND"


class ResourceNotFoundError(NotFoundError):
    """There is no such file, attachment or conversation."""

    default_reason = "RESOURCE_NOT_FOUND"


class AlreadyExistsError(OrreryError):
    """What should be created exists, and is not the same."""

    default_reason = "ALREADY_EXISTS"


class ServiceNotFoundError(NotFoundError):
    """There is no such application, or it has no such gRPC service."""

    default_reason = "SERVICE_NOT_FOUND"


class AuthenticationError(OrreryError):
    """The API key is missing or wrong."""

    default_reason = "UNAUTHENTICATED"


class PermissionDeniedError(OrreryError):
    """The API key is known and may not do this."""

    default_reason = "PERMISSION_DENIED"


class OverloadedError(OrreryError):
    """A queue of the server is full; `retry_after_s`, if set, says when to try again."""

    default_reason = "OVERLOADED"


class RateLimitedError(OverloadedError):
    """This caller has used up its share; `retry_after_s` says when to try again."""

    default_reason = "RATE_LIMITED"


class UnavailableError(OrreryError):
    """Nobody answers at the target."""

    default_reason = "UNAVAILABLE"


class NotReadyError(UnavailableError):
    """The service is there and its model is still being loaded."""

    default_reason = "NOT_READY"


class DependencyDownError(UnavailableError):
    """A service that the called one needs does not answer."""

    default_reason = "DEPENDENCY_DOWN"


class ConnectionLostError(UnavailableError):
    """The server went away in the middle of the call: a replica died, a connection broke."""

    default_reason = "CONNECTION_LOST"


class DeadlineExceededError(OrreryError):
    """The time of the call was up before its answer was complete."""

    default_reason = "DEADLINE_EXCEEDED"


class CancelledError(OrreryError):
    """The call was cancelled: the stream was closed while being read, or the server ended it."""

    default_reason = "CANCELLED"


class InternalError(OrreryError):
    """The server failed in a way it did not foresee."""

    default_reason = "INTERNAL"


ERRORS_BY_REASON: Mapping[str, type[OrreryError]] = MappingProxyType(
    {
        error.default_reason: error
        for error in (
            InvalidRequestError,
            ContextTooLongError,
            NotFoundError,
            ModelNotFoundError,
            CollectionNotFoundError,
            ResourceNotFoundError,
            AlreadyExistsError,
            ServiceNotFoundError,
            AuthenticationError,
            PermissionDeniedError,
            OverloadedError,
            RateLimitedError,
            UnavailableError,
            NotReadyError,
            DependencyDownError,
            ConnectionLostError,
            DeadlineExceededError,
            CancelledError,
            InternalError,
        )
    }
)
"""Which class a reason of `google.rpc.ErrorInfo` becomes. Every class but the base is in it."""
