"""What steps may ask for around one call that streams both ways, beyond `orrery.steps`.

A generator of such steps is carried out by `orrery.exchange`, blocking or awaiting.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from orrery.methods import Method
from orrery.steps import Effect, Metadata

__all__ = [
    "DoneWriting",
    "Emit",
    "ExchangeEffect",
    "ExchangeSteps",
    "Open",
    "Read",
    "Take",
    "Write",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Open:
    """Begin the call; one that is still open is cancelled."""

    method: Method[Any, Any]
    metadata: Metadata
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Write:
    """Send a message. Does not wait for it to arrive."""

    message: Any


@dataclass(frozen=True, slots=True)
class DoneWriting:
    """Say that there are no more messages."""


@dataclass(frozen=True, slots=True)
class Read:
    """Wait for a message and give it back; None = the server has ended the call with status OK."""


@dataclass(frozen=True, slots=True)
class Take:
    """Give back the next item of the caller's source; None = there are no more."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand a result to whoever iterates over the steps."""

    result: Any


ExchangeEffect: TypeAlias = Effect | Open | Write | DoneWriting | Read | Take | Emit
ExchangeSteps: TypeAlias = Generator[ExchangeEffect, Any, T]
