"""What can go wrong in the engine, as types.

The engine knows nothing of gRPC or HTTP: a servicer translates these into the taxonomy of
`services.runtime.errors`, one to one.

    EngineError
    ├── InvalidRequestError      a field of the request is wrong; names it
    │   └── ContextTooLongError  prompt (plus max_tokens) does not fit the context
    ├── QueueFullError           the waiting queue is at its limit
    ├── ConfigError              a setting of the engine or of a model's config is wrong; names it
    ├── CheckpointError          a checkpoint is missing, incomplete or misshapen; names the tensor
    ├── ExpertsUnavailableError  experts that are computed elsewhere cannot be reached now
    └── EngineDeadError          the step loop has stopped; no request can be served
"""

from __future__ import annotations

from typing import Self

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ContextTooLongError",
    "EngineDeadError",
    "EngineError",
    "ExpertsUnavailableError",
    "InvalidRequestError",
    "QueueFullError",
]


class EngineError(Exception):
    """Base of every error the engine raises on purpose."""


class InvalidRequestError(EngineError):
    """A field of a request is wrong. `field` names it; the message says what was expected."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class ContextTooLongError(InvalidRequestError):
    """The prompt, or prompt plus `max_tokens`, does not fit the model's context."""


class QueueFullError(EngineError):
    """The waiting queue is full. `retry_after_s` estimates when trying again makes sense."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    @classmethod
    def beyond(cls, max_waiting: int, retry_after_s: float) -> Self:
        """Of a queue with that limit."""
        message = f"all slots are taken, and at most {max_waiting} requests may wait"
        return cls(message, retry_after_s)


class ConfigError(EngineError):
    """A setting is wrong. `key` names it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key


class CheckpointError(EngineError):
    """A checkpoint cannot be loaded: a missing, unused or misshapen tensor, or a missing file."""


class ExpertsUnavailableError(EngineError):
    """A sparse layer that is computed elsewhere cannot be computed now; trying again may help.

    Raised by a `SparseLayer`. No request is to blame: all those of the step end with it, and the
    engine goes on.
    """


class EngineDeadError(EngineError):
    """The step loop has stopped because of an error that no single request caused."""
