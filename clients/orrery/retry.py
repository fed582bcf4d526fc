"""When a failed call is tried again, and how long to wait first.

Pure: it neither sleeps nor calls. Nothing is repeated once the first message of an answer has
arrived; that is the caller's part, because only the caller knows.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from orrery.errors import (
    ConnectionLostError,
    ModelNotFoundError,
    OrreryError,
    OverloadedError,
    UnavailableError,
)

__all__ = ["Deadline", "RetryPolicy"]

_NOT_FOUND_DELAY_S = 0.1


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    Before retry k (counted from 0) passes a random time in [0, initial * 2**k], but at most
    `max_backoff_s`. Why the whole interval: "Exponential Backoff And Jitter", Brooker 2015.
    """

    max_retries: int
    not_found_retries: int = 2
    initial_backoff_s: float = 0.2
    max_backoff_s: float = 5.0
    max_retry_after_s: float = 60.0
    uniform: Callable[[float, float], float] = random.uniform
    # Whether doing it twice is the same as once. If not, what may have been done is not repeated.
    idempotent: bool = True

    def delay_s(self, error: OrreryError, *, retries: int, said_by_server: bool) -> float | None:
        """Seconds to wait before trying again, or None where it makes no sense.

        Args:
            error: What the last attempt ended with.
            retries: How many retries there were already.
            said_by_server: Whether a service reported the error, not something in between.
        """
        if isinstance(error, ModelNotFoundError) and not said_by_server:
            # A load balancer that has just restarted knows no application for a moment.
            return _NOT_FOUND_DELAY_S if retries < self.not_found_retries else None
        if retries >= self.max_retries or not isinstance(error, UnavailableError | OverloadedError):
            return None
        if isinstance(error, ConnectionLostError) and not self.idempotent:
            return None
        ceiling = min(self.max_backoff_s, self.initial_backoff_s * 2**retries)
        backoff = self.uniform(0.0, ceiling)
        if error.retry_after_s is None:
            return backoff
        if error.retry_after_s > self.max_retry_after_s:
            return None
        # Callers told the same time would all come back at once: keep the jitter on top.
        return error.retry_after_s + backoff


class Deadline:
    """The moment at which a call's time is up."""

    def __init__(self, timeout_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock() + timeout_s

    def remaining_s(self) -> float:
        """Seconds left, not below zero; infinity when there is no deadline."""
        return max(0.0, self._at - self._clock())

    def grpc_timeout(self, at_most_s: float = math.inf) -> float | None:
        """What is left as gRPC wants it: None when there is no deadline."""
        left = min(self.remaining_s(), at_most_s)
        return None if math.isinf(left) else left
