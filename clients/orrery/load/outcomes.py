"""The one outcome that every request has. Knows nothing of how requests are sent.

ok           the whole answer came
refused      the platform said at once that it has no room: RESOURCE_EXHAUSTED, 429
<REASON>     anything else, by the platform's own reason (`UNAVAILABLE`, ...); or, where it
             gave none, `HTTP_<status>`, `CLIENT_<exception>`, `UNFINISHED` (still under way
             when the run was over)
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from itertools import pairwise

from orrery import OrreryError, OverloadedError

__all__ = ["OK", "REFUSED", "Heard", "HttpFailure", "Outcome", "Sent", "outcome_of"]

OK = "ok"
REFUSED = "refused"
_UNFINISHED = "UNFINISHED"
_MIDWAY = "REFUSED_MIDWAY"


class HttpFailure(Exception):
    """An answer over HTTP that says what went wrong. `code` as in the body, upper case."""

    def __init__(self, status: int, code: str, retry_after_s: float | None) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class Heard:
    """What has come of one request so far; moments by `time.perf_counter`."""

    moments: list[float] = field(default_factory=list)  # at which text came
    texts: list[str] = field(default_factory=list)  # which then came
    num_tokens: int = 0

    def text(self, text: str) -> None:
        self.moments.append(time.perf_counter())
        self.texts.append(text)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. Times in seconds: `planned_s` since the start of the run, others since then.

    lateness_s    until it was sent: the load generator's own delay
    first_s       until its first text; None where its answer has none
    gaps_s        between texts
    total_s       until its end, whatever it was
    """

    kind: str
    transport: str
    status: str
    planned_s: float
    lateness_s: float
    first_s: float | None
    gaps_s: tuple[float, ...]
    total_s: float
    num_tokens: int
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that is under way: what it is, and its moments by `time.perf_counter`."""

    kind: str
    transport: str
    run_began: float
    planned: float
    sent: float


def outcome_of(request: Sent, heard: Heard, error: BaseException | None) -> Outcome:
    """What it came to, now that it has ended: with `error`, or with the whole answer."""
    status, retry_after_s = (OK, None) if error is None else _status(error)
    if status == REFUSED and heard.moments:
        status = _MIDWAY  # it was accepted before
    moments = heard.moments
    return Outcome(
        kind=request.kind,
        transport=request.transport,
        status=status,
        planned_s=request.planned - request.run_began,
        lateness_s=request.sent - request.planned,
        first_s=moments[0] - request.planned if moments else None,
        gaps_s=tuple(b - a for a, b in pairwise(moments)),
        total_s=time.perf_counter() - request.planned,
        num_tokens=heard.num_tokens,
        retry_after_s=retry_after_s,
    )


def _status(error: BaseException) -> tuple[str, float | None]:
    match error:
        case OverloadedError():
            return REFUSED, error.retry_after_s
        case OrreryError():
            return error.reason, error.retry_after_s
        case HttpFailure(status=429) | HttpFailure(code="SERVER_OVERLOADED"):
            return (
                REFUSED,
                error.retry_after_s,
            )  # the latter where the stream had begun, without text
        case HttpFailure():
            return error.code or f"HTTP_{error.status}", error.retry_after_s
        case asyncio.CancelledError():
            return _UNFINISHED, None
    return f"CLIENT_{type(error).__name__}", None
