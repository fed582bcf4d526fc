"""The one place where the engine's errors become the taxonomy's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from services.engine.errors import (
    ContextTooLongError,
    EngineDeadError,
    EngineError,
    ExpertsUnavailableError,
    InvalidRequestError,
    QueueFullError,
)
from services.runtime.errors import (
    ContextTooLong,
    DependencyDown,
    InvalidRequest,
    NotReady,
    OrreryError,
    Overloaded,
)

__all__ = ["to_taxonomy"]


def _invalid(error: EngineError) -> OrreryError:
    assert isinstance(error, InvalidRequestError)
    return InvalidRequest(str(error), field=error.field)


def _too_long(error: EngineError) -> OrreryError:
    assert isinstance(error, ContextTooLongError)
    return ContextTooLong(str(error), field=error.field)


def _queue_full(error: EngineError) -> OrreryError:
    assert isinstance(error, QueueFullError)
    return Overloaded(str(error), retry_after_s=error.retry_after_s)


def _experts_unavailable(error: EngineError) -> OrreryError:
    return DependencyDown(str(error), retry_after_s=1.0)


def _dead(_: EngineError) -> OrreryError:
    # What killed the engine is in the log; a client only needs to know to go elsewhere.
    return NotReady("the engine has stopped; the replica is being replaced", retry_after_s=5.0)


_TRANSLATIONS: Mapping[type[EngineError], Callable[[EngineError], OrreryError]] = MappingProxyType(
    {
        ContextTooLongError: _too_long,
        InvalidRequestError: _invalid,
        QueueFullError: _queue_full,
        ExpertsUnavailableError: _experts_unavailable,
        EngineDeadError: _dead,
    }
)


def to_taxonomy(error: Exception) -> OrreryError | None:
    """The taxonomy's error for one of the engine's, or None: then it is nobody's fault but ours.

    `ConfigError` and `CheckpointError` stop a service at its start: reached by a call they are
    internal errors like any other.
    """
    if isinstance(error, EngineError):
        for cls in type(error).__mro__:
            if cls in _TRANSLATIONS:
                return _TRANSLATIONS[cls](error)
    return None
